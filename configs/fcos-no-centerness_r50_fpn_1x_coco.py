# Triple-head Network, table 5, baseline: FCOS without the centerness branch (AP 33.5).
_base_ = 'fcos_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['misalign_det'])
model = dict(bbox_head=dict(type='FCOSHeadWithoutCenterness'))
