# Paper B, table 9: AP 45.0 on test-dev.
_base_ = 'jla_triplehead_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        depth=101,
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://detectron/resnet101_caffe'),
    )
)
