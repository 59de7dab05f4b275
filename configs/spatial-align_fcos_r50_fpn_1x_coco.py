# Toward Minimal Misalignment, the assigner alone: FCOS's own towers with the IoU
# branch, no deformable convolution.
_base_ = 'spatial-align_rfahead_r50_fpn_1x_coco.py'
model = dict(
    bbox_head=dict(
        type='LossAwareFCOSHead',
        with_iou_branch=True,
        iou_mode='giou',
        score_mode='geometric_mean',
        centerness_weight=True,
    )
)
