# Paper A, RFA alone: mmdet's FCOS, its targets and losses, with the receptive field adaptor.
_base_ = 'fcos_r50_fpn_1x_coco.py'
model = dict(bbox_head=dict(type='RFAFCOSHead', rfa_position='first'))
