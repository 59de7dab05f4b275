# mmdet's RetinaNet on ResNet-101, a baseline of Dynamic Coefficient Loss, test-dev: AP 39.1.
_base_ = 'retinanet_r50_fpn_12e_coco.py'
model = dict(
    backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101'))
)
