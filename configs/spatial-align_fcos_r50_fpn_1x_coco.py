# Toward Minimal Misalignment, the assigner alone: FCOS's own towers with the IoU
# branch, no deformable convolution.
_base_ = 'spatial-align_rfahead_r50_fpn_1x_coco.py'
model = dict(bbox_head=dict(rfa_position=None))
