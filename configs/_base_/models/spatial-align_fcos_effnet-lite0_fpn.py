# Spatial alignment alone: FCOS's two towers with the IoU branch.
_base_ = 'rfahead_effnet-lite0_fpn.py'
model = dict(
    bbox_head=dict(
        type='LossAwareFCOSHead',
        with_iou_branch=True,
        iou_mode='giou',
        score_mode='geometric_mean',
        centerness_weight=True,
    )
)
