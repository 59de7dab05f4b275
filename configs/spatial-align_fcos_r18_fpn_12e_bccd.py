# The assigner alone: FCOS's own towers with the IoU branch.
_base_ = 'spatial-align_rfahead_r18_fpn_12e_bccd.py'
model = dict(bbox_head=dict(rfa_position=None))
