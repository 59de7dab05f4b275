# 12 epochs of VOC 07+12, 16 images per step, SGD 0.01, linear warm-up over 500 steps, decay by 10
# after 9: as long as mmdet's VOC schedule, which repeats the data set three times in each of 4
# epochs.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=3)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[9], gamma=0.1),
]

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001)
)

auto_scale_lr = dict(enable=False, base_batch_size=16)
