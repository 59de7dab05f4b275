# Paper A, the assigner alone: FCOS's own towers with the quality branch, no deformable convolution.
_base_ = 'spatial-align_rfahead_r50_fpn_1x_coco.py'
model = dict(bbox_head=dict(rfa_position=None))
