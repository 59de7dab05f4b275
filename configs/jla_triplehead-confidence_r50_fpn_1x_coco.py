# Triple-head Network, table 5, + IoU prediction, without box refinement: the coarse box is the
# final one (AP 39.6).
_base_ = 'jla_triplehead_r50_fpn_1x_coco.py'
model = dict(bbox_head=dict(refine_mode='none'))
