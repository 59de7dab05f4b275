# Toward Minimal Misalignment, test-dev: AP 46.3.
_base_ = [
    '_base_/models/rfahead_r50_fpn.py',
    '_base_/datasets/coco_detection_multiscale.py',
    '_base_/schedules/schedule_2x_180k.py',
    '_base_/iter_runtime.py',
]
model = dict(
    backbone=dict(
        depth=101,
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://detectron/resnet101_caffe'),
    )
)
