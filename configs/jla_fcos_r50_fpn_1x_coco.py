# Triple-head Network, table 5, + JLA: FCOS's two towers without centerness, trained by
# JLAAssigner (AP 38.0). Also k = 35 of table 1 and theta = 0.6 of table 2.
_base_ = 'jla_triplehead_r50_fpn_1x_coco.py'
model = dict(
    bbox_head=dict(
        _delete_=True,
        type='LossAwareFCOSHead',
        num_classes=80,
        in_channels=256,
        feat_channels=256,
        stacked_convs=4,
        strides=[8, 16, 32, 64, 128],
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='IoULoss', loss_weight=1.0),
    )
)
