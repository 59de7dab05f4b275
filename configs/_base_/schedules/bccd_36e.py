# 36 epochs on BCCD at batch 8 (26 steps an epoch): SGD 0.02, linear warm-up over the first epoch,
# decay by 10 after 2/3 and 11/12 of the epochs, validation every 12 epochs and so at the end.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=36, val_interval=12)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=26),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=36, milestones=[24, 33], gamma=0.1),
]

# Without the clip some seeds blow up while the rate rises (FCOS, ATSS: classification loss above
# 1.2 for two epochs) and never make up for it: the figures then measure luck.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001),
    clip_grad=dict(max_norm=10, norm_type=2),
)

auto_scale_lr = dict(enable=False, base_batch_size=8)

# A tenth less time a step without a GPU.
custom_hooks = [dict(type='ChannelsLastHook')]
