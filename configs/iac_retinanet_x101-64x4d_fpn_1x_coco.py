# Paper C, + IAC score.
_base_ = 'plain_retinanet_x101-64x4d_fpn_1x_coco.py'
model = dict(train_cfg=dict(assigner=dict(type='IACAssigner')))
