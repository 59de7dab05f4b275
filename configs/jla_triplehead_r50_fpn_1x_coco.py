# Triple-head Network, table 5, last row, and table 9: AP 40.3 on val with everything on.
_base_ = [
    '_base_/models/triplehead_r50_fpn.py',
    '_base_/datasets/coco_detection.py',
    '_base_/schedules/schedule_1x_90k.py',
    '_base_/iter_runtime.py',
]
