# 12 epochs on BCCD at batch 8 (26 steps per epoch): SGD 0.02, linear warm-up over the first epoch,
# decay by 10 after 2/3 and 11/12 of the epochs, validation every 4 epochs. The options
# for 36 epochs are in configs/bccd.md.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=26),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]

# Without clipping some seeds diverge during warm-up (FCOS, ATSS: classification loss above 1.2 for
# two epochs) and do not recover in so short a schedule.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001),
    clip_grad=dict(max_norm=10, norm_type=2),
)

auto_scale_lr = dict(enable=False, base_batch_size=8)
