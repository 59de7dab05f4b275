# Paper C's baseline on ResNet-101: AP 39.1 on test-dev.
_base_ = 'plain_retinanet_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101'))
)
