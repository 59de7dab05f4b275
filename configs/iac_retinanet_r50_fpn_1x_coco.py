# Paper C, table 2, + IAC score: AP 36.4 / 56.5 / 39.1.
_base_ = 'plain_retinanet_r50_fpn_1x_coco.py'
model = dict(train_cfg=dict(assigner=dict(type='IACAssigner')))
