# Triple-head Network, table 9, test-dev: AP 45.0.
_base_ = 'jla_triplehead_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        depth=101,
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://detectron/resnet101_caffe'),
    )
)
