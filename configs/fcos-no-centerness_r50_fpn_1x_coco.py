# Paper B, table 5, baseline: FCOS's own targets without the centerness branch (AP 33.5).
_base_ = 'fcos_r50_fpn_1x_coco.py'
model = dict(bbox_head=dict(type='FCOSHeadWithoutCenterness'))
