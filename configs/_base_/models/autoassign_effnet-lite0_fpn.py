# mmdet's AutoAssign on the small backbone.
_base_ = 'fcos_effnet-lite0_fpn.py'
model = dict(
    type='AutoAssign',
    bbox_head=dict(
        _delete_=True,
        type='AutoAssignHead',
        num_classes=80,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        strides=[8, 16, 32, 64, 128],
        norm_cfg=dict(type='GN', num_groups=16, requires_grad=True),
        loss_bbox=dict(type='GIoULoss', loss_weight=5.0),
    ),
)
