# The quickstart: a small triple-head detector from scratch on the generated set, 300 steps, some
# minutes on two cores. AdamW, because plain SGD needs several times the steps from scratch.
_base_ = [
    '_base_/models/triplehead_r18_fpn.py',
    '_base_/datasets/shapes_detection.py',
    '_base_/default_runtime.py',
]
model = dict(bbox_head=dict(num_classes=6))

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=6, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=1,
        end=6,
        T_max=5,
        eta_min_ratio=0.02,
        convert_to_iter_based=True),
]

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.001, weight_decay=0.05),
    clip_grad=dict(max_norm=35, norm_type=2))

default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=1, max_keep_ckpts=2))
randomness = dict(seed=0)
