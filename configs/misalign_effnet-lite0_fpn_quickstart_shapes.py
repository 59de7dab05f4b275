# The quickstart: the recommended detector on a generated set of small images, in about three
# and a half minutes on two cores. Of the pretrained backbone only the last stages are trained.
_base_ = [
    '_base_/models/misalign_effnet-lite0_fpn.py',
    '_base_/datasets/shapes_detection.py',
    '_base_/schedules/adamw_12e.py',
    '_base_/default_runtime.py',
    '_base_/channels_last.py',
]
model = dict(backbone=dict(frozen_stages=4), bbox_head=dict(num_classes=6))

# tools/quickstart.sh draws it.
data_root = '{{$MISALIGN_DET_QUICKSTART:data/quickstart}}/'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator

max_epochs = 4
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        eta_min=0,
        by_epoch=True,
        convert_to_iter_based=True,
        begin=0,
        end=max_epochs,
    ),
]
optim_wrapper = dict(optimizer=dict(lr=0.001))
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
