# Paper C, table 2, baseline: AP 35.9 / 56.1 / 38.6.
_base_ = [
    '_base_/models/retinanet_r50_fpn.py',
    '_base_/datasets/coco_detection.py',
    '_base_/schedules/schedule_1x_12e.py',
    '_base_/default_runtime.py',
]
