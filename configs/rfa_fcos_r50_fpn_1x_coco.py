# Toward Minimal Misalignment, RFA alone: mmdet's FCOS, its targets and losses, with the adaptor.
_base_ = 'fcos_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['misalign_det'])
model = dict(bbox_head=dict(type='RFAFCOSHead', rfa_position='first'))
