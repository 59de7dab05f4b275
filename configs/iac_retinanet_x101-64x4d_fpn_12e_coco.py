# Dynamic Coefficient Loss, + IAC score, on ResNeXt-101.
_base_ = 'retinanet_x101-64x4d_fpn_12e_coco.py'
custom_imports = dict(imports=['misalign_det'])
model = dict(bbox_head=dict(type='DCRetinaHead'), train_cfg=dict(assigner=dict(type='IACAssigner')))
