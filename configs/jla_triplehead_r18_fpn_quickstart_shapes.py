# The quickstart: a small triple-head detector from scratch on the generated set, minutes on a CPU.
_base_ = [
    '_base_/models/triplehead_r18_fpn.py',
    '_base_/datasets/shapes_detection.py',
    '_base_/default_runtime.py',
]
model = dict(bbox_head=dict(num_classes=6))
