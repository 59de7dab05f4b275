# Dynamic Coefficient Loss, + IAC score, table 2, VOC 2007 test: mAP 78.6.
_base_ = 'retinanet_r50_fpn_12e_voc0712.py'
custom_imports = dict(imports=['misalign_det'])
model = dict(bbox_head=dict(type='DCRetinaHead'), train_cfg=dict(assigner=dict(type='IACAssigner')))
