# RetinaNet with positives by the IoU-classification score.
_base_ = ['retinanet_r18_fpn_12e_bccd.py', '_base_/channels_last.py']
custom_imports = dict(imports=['misalign_det'])
model = dict(bbox_head=dict(type='DCRetinaHead'), train_cfg=dict(assigner=dict(type='IACAssigner')))
