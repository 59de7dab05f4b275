# Paper C, table 2, + IAC score: mAP 78.6.
_base_ = 'plain_retinanet_r50_fpn_12e_voc0712.py'
model = dict(train_cfg=dict(assigner=dict(type='IACAssigner')))
