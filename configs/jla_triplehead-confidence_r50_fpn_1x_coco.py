# Paper B, table 5, + IoU prediction without the refinement (AP 39.6).
_base_ = 'jla_triplehead_r50_fpn_1x_coco.py'
model = dict(bbox_head=dict(refine_mode='none'))
