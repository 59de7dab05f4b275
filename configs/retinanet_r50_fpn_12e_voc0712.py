# mmdet's RetinaNet, the baseline of Dynamic Coefficient Loss, table 2, VOC 2007 test: mAP 78.2.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '_base_/datasets/voc0712_detection.py',
    '_base_/schedules/voc_12e.py',
    '_base_/default_runtime.py',
]
model = dict(bbox_head=dict(num_classes=20))
