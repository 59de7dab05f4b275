# Triple-head Network, table 5, + triple head: guided convolutions, without box refinement and
# IoU prediction (AP 38.9).
_base_ = 'jla_triplehead_r50_fpn_1x_coco.py'
model = dict(bbox_head=dict(refine_mode='none', with_iou_branch=False, score_mode='class'))
