# RFA alone: mmdet's FCOS, its targets and losses, with the receptive field adaptor.
_base_ = 'fcos_effnet-lite0_fpn.py'
model = dict(bbox_head=dict(type='RFAFCOSHead', rfa_position='first'))
