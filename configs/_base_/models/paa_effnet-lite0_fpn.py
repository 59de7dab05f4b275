# mmdet's PAA on the small backbone. In one dimension the mixture of covariance_type='full' is that
# of 'diag', mmdet's default. scikit-learn computes 'diag' as E[x^2] - E[x]^2, which rounding makes
# negative in float32, and ends the training ("ill-defined empirical covariance"); 'full' is a sum
# of squares.
_base_ = 'fcos_effnet-lite0_fpn.py'
model = dict(
    type='PAA',
    bbox_head=dict(
        _delete_=True,
        type='PAAHead',
        reg_decoded_bbox=True,
        score_voting=True,
        covariance_type='full',
        topk=9,
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
        loss_bbox=dict(type='GIoULoss', loss_weight=1.3),
        loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=0.5),
    ),
    train_cfg=dict(
        assigner=dict(
            type='MaxIoUAssigner',
            pos_iou_thr=0.1,
            neg_iou_thr=0.1,
            min_pos_iou=0,
            ignore_iof_thr=-1,
        ),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
)
