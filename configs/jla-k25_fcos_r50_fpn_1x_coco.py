# Paper B, table 1: 25 candidates a GT (AP 37.9). k = 35 is jla_fcos_r50_fpn_1x_coco.py.
_base_ = 'jla_fcos_r50_fpn_1x_coco.py'
model = dict(train_cfg=dict(assigner=dict(topk=25)))
