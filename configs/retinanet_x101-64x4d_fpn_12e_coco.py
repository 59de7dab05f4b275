# mmdet's RetinaNet on ResNeXt-101, a baseline of Dynamic Coefficient Loss, test-dev: AP 40.8.
_base_ = 'retinanet_r50_fpn_12e_coco.py'
model = dict(
    backbone=dict(
        type='ResNeXt',
        depth=101,
        groups=64,
        base_width=4,
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://resnext101_64x4d'),
    )
)
