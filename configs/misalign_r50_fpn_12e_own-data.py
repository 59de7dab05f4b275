# The recommended detector for your own images: give them with --data FOLDER. 12 epochs, whatever
# their number; without --data it is COCO that is trained.
_base_ = [
    '_base_/models/misalign_r50_fpn.py',
    '_base_/datasets/coco_detection.py',
    '_base_/schedules/coco_12e.py',
    '_base_/default_runtime.py',
]
# A warm-up over the first epoch: the 500 steps of COCO's may be more than all of a small folder.
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.001,
        by_epoch=True,
        convert_to_iter_based=True,
        begin=0,
        end=1,
    ),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
# With a short warm-up an unclipped step may diverge, see bccd_12e.py.
optim_wrapper = dict(clip_grad=dict(max_norm=10, norm_type=2))
# From the 16 images per step of the learning rate to those of the run.
auto_scale_lr = dict(enable=True)
