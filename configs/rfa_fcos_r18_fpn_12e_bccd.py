# RFA alone: mmdet's FCOS, its targets and losses, with the receptive field adaptor.
_base_ = ['fcos_r18_fpn_12e_bccd.py', '_base_/channels_last.py']
custom_imports = dict(imports=['misalign_det'])
model = dict(bbox_head=dict(type='RFAFCOSHead', rfa_position='first'))
