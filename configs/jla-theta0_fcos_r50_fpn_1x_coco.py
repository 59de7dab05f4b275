# Paper B, table 2: weight threshold 0, least loss throughout (AP 37.5). 0.6 is jla_fcos.
_base_ = 'jla_fcos_r50_fpn_1x_coco.py'
model = dict(train_cfg=dict(assigner=dict(theta=0)))
