# mmdet's RetinaNet, the baseline of Dynamic Coefficient Loss, table 2: AP 35.9 / 56.1 / 38.6.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '_base_/datasets/coco_detection.py',
    '_base_/schedules/coco_12e.py',
    '_base_/default_runtime.py',
]
