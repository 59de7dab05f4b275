# Triple-head Network, table 5, + box refinement, without IoU prediction (AP 39.6).
_base_ = 'jla_triplehead_r50_fpn_1x_coco.py'
model = dict(bbox_head=dict(with_iou_branch=False, score_mode='class'))
