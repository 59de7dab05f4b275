# Paper C, + IAC score.
_base_ = 'plain_retinanet_r101_fpn_1x_coco.py'
model = dict(train_cfg=dict(assigner=dict(type='IACAssigner')))
