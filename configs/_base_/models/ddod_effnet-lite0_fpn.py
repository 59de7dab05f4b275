# mmdet's DDOD on the small backbone. Its towers begin with a deformable convolution, which mmcv
# refuses on maps smaller than 3x3: images are padded to a multiple of 96, so that sides of 193
# pixels or more give stride 128 three cells.
_base_ = 'fcos_effnet-lite0_fpn.py'
model = dict(
    type='DDOD',
    data_preprocessor=dict(pad_size_divisor=96),
    bbox_head=dict(
        _delete_=True,
        type='DDODHead',
        num_classes=80,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=dict(type='GN', num_groups=16, requires_grad=True),
        anchor_generator=dict(
            type='AnchorGenerator',
            ratios=[1.0],
            octave_base_scale=8,
            scales_per_octave=1,
            strides=[8, 16, 32, 64, 128],
        ),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2]
        ),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        loss_iou=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
    ),
    train_cfg=dict(
        assigner=dict(type='ATSSAssigner', topk=9, alpha=0.8),  # of the classes
        reg_assigner=dict(type='ATSSAssigner', topk=9, alpha=0.5),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
)
