# Triple-head Network, table 5, + triple head: a guided convolution for the classes, without IoU
# prediction and box refinement, so that the coarse box is the final one (AP 38.9).
_base_ = 'jla_triplehead_r50_fpn_1x_coco.py'
model = dict(bbox_head=dict(refine_mode='none', with_iou_branch=False, score_mode='class'))
