# The assigner alone: FCOS's own towers with the IoU branch.
_base_ = 'spatial-align_rfahead_r18_fpn_12e_bccd.py'
model = dict(
    bbox_head=dict(
        type='LossAwareFCOSHead',
        with_iou_branch=True,
        iou_mode='giou',
        score_mode='geometric_mean',
        centerness_weight=True,
    )
)
