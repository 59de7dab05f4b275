_base_ = [
    '_base_/models/misalign_r50_fpn.py',
    '_base_/datasets/coco_detection.py',
    '_base_/schedules/schedule_1x_90k.py',
    '_base_/iter_runtime.py',
]
