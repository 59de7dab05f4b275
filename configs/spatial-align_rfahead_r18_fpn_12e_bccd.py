# Toward Minimal Misalignment, everything on: RFA head and spatial alignment.
_base_ = [
    '_base_/models/rfahead_r18_fpn.py',
    '_base_/datasets/bccd_detection.py',
    '_base_/schedules/bccd_12e.py',
    '_base_/default_runtime.py',
    '_base_/channels_last.py',
]
model = dict(bbox_head=dict(num_classes=3))
