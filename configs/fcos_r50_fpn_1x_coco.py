# FCOS with centerness and conv bias, the model whose parameters paper B's table 4 counts.
_base_ = [
    '_base_/models/fcos_r50_fpn.py',
    '_base_/datasets/coco_detection.py',
    '_base_/schedules/schedule_1x_90k.py',
    '_base_/iter_runtime.py',
]
