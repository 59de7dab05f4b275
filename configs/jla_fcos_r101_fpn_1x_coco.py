# Triple-head Network, table 5, + JLA, on ResNet-101.
_base_ = 'jla_fcos_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        depth=101,
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://detectron/resnet101_caffe'),
    )
)
