# mmdet's FCOS with centerness; Triple-head Network, table 7: AP 16.7 / AP50 29.3 / AP75 16.7.
_base_ = [
    '_base_/models/fcos_r50_fpn.py',
    '_base_/datasets/visdrone_detection.py',
    '_base_/schedules/schedule_1x_90k.py',
    '_base_/iter_runtime.py',
]
model = dict(bbox_head=dict(num_classes=10), test_cfg=dict(max_per_img=500))
