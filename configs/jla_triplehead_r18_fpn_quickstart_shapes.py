# A small triple-head detector from scratch on the generated set, in about three minutes on two
# cores: what the quickstart trained before it had pretrained weights. Half of ResNet-18's width and
# small batches, so that there is time for 600 steps; AdamW, because plain SGD needs several times
# as many from scratch.
_base_ = [
    '_base_/models/triplehead_r18_fpn.py',
    '_base_/datasets/shapes_detection.py',
    '_base_/default_runtime.py',
    '_base_/channels_last.py',
]
model = dict(
    backbone=dict(base_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256]),
    bbox_head=dict(num_classes=6),
    train_cfg=dict(assigner=dict(per_gt_reweight=1.0)),
)
train_dataloader = dict(batch_size=4)

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=6, val_interval=3)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=1,
        end=6,
        T_max=5,
        eta_min_ratio=0.02,
        convert_to_iter_based=True,
    ),
]

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.001, weight_decay=0.05),
    clip_grad=dict(max_norm=35, norm_type=2),
)

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1, max_keep_ckpts=2))
randomness = dict(seed=0)
