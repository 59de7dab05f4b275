# JLA alone: two towers without centerness, no pre-regression branch.
_base_ = 'jla_triplehead_r18_fpn_12e_bccd.py'
model = dict(
    bbox_head=dict(
        _delete_=True,
        type='LossAwareFCOSHead',
        num_classes=3,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        strides=[8, 16, 32, 64, 128],
        norm_cfg=dict(type='GN', num_groups=16, requires_grad=True),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='IoULoss', loss_weight=1.0),
    )
)
