# Triple-head Network, table 2: weight threshold 0, so that an ambiguous location always goes to
# the GT with the least loss (AP 37.5). 0.6 is jla_fcos_r50_fpn_1x_coco.py.
_base_ = 'jla_fcos_r50_fpn_1x_coco.py'
model = dict(train_cfg=dict(assigner=dict(theta=0)))
