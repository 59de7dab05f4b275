# The 90k schedule of the COCO tables ("1x"): 16 images per step, SGD 0.01, constant warm-up over
# 500 steps at a third, decay by 10 after 60k and 80k steps. It counts steps: use it with
# iter_runtime.py. The base batch is 8 GPUs x 2 images; with another one, --auto-scale-lr scales
# the rate in proportion.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=90000, val_interval=10000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='ConstantLR', factor=0.333, by_epoch=False, begin=0, end=500),
    dict(
        type='MultiStepLR', by_epoch=False, begin=0, end=90000, milestones=[60000, 80000], gamma=0.1
    ),
]

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001)
)

auto_scale_lr = dict(enable=False, base_batch_size=16)
