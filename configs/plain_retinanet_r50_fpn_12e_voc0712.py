# Paper C, table 2, baseline: mAP 78.2 on VOC 2007 test.
_base_ = [
    '_base_/models/retinanet_r50_fpn.py',
    '_base_/datasets/voc0712_detection.py',
    '_base_/schedules/voc_12e.py',
    '_base_/default_runtime.py',
]
model = dict(bbox_head=dict(num_classes=20))
