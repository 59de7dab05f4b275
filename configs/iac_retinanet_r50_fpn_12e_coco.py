# Dynamic Coefficient Loss, + IAC score, table 2: AP 36.4 / 56.5 / 39.1.
_base_ = 'retinanet_r50_fpn_12e_coco.py'
custom_imports = dict(imports=['misalign_det'])
model = dict(bbox_head=dict(type='DCRetinaHead'), train_cfg=dict(assigner=dict(type='IACAssigner')))
