# Triple-head Network, table 1: 30 candidates per GT (AP 37.9). 35: jla_fcos_r50_fpn_1x_coco.py.
_base_ = 'jla_fcos_r50_fpn_1x_coco.py'
model = dict(train_cfg=dict(assigner=dict(topk=30)))
