# The config to start from: see configs/misalign.md, also for what each line gains.
_base_ = 'triplehead_effnet-lite0_fpn.py'
model = dict(
    bbox_head=dict(
        cls_shortcut=True,
        init_distance=[1.5, 4.0, 4.0, 4.0, 4.0],
        iou_target='refined',
        score_mode='geometric_mean',
        score_alpha=0.25,
        loss_cls=dict(_delete_=True, type='QualityFocalLoss', use_sigmoid=True, beta=2.0),
        loss_bbox=dict(_delete_=True, type='GIoULoss', loss_weight=2.0),
        loss_bbox_coarse=dict(_delete_=True, type='GIoULoss', loss_weight=1.0),
    ),
    train_cfg=dict(
        assigner=dict(
            _delete_=True, type='SpatialAlignAssigner', topk=9, num_levels=2, per_gt_reweight=1.0
        )
    ),
    test_cfg=dict(box_voting=dict(sigma=0.05)),
)
