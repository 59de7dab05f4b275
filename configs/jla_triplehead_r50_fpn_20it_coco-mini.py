# The COCO model at full input size on COCO's first 128 + 128 images: 20 steps of batch 2 and an
# evaluation, to see that everything runs and what it costs. ROOT as in coco_detection.py.
_base_ = 'jla_triplehead_r50_fpn_1x_coco.py'
model = dict(backbone=dict(init_cfg=None))
train_cfg = dict(max_iters=20, val_interval=20)
default_hooks = dict(logger=dict(interval=1))
