# Dynamic Coefficient Loss, + IAC score, on ResNet-101.
_base_ = 'retinanet_r101_fpn_12e_coco.py'
custom_imports = dict(imports=['misalign_det'])
model = dict(bbox_head=dict(type='DCRetinaHead'), train_cfg=dict(assigner=dict(type='IACAssigner')))
