# Triple-head Network, table 6: VOC 07+12, 45k steps, AP 56.7 / AP50 81.6 / AP75 61.6 on VOC07 test.
_base_ = [
    '_base_/models/triplehead_r50_fpn.py',
    '_base_/datasets/voc0712_detection.py',
    '_base_/schedules/voc_45k.py',
    '_base_/iter_runtime.py',
]
model = dict(bbox_head=dict(num_classes=20))
