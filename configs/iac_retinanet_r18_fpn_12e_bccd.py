# RetinaNet with positives by the IoU-classification score.
_base_ = 'plain_retinanet_r18_fpn_12e_bccd.py'
model = dict(train_cfg=dict(assigner=dict(type='IACAssigner')))
