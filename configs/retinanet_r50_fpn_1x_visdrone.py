# Triple-head Network, table 7, first row, whose detector is mmdet's RetinaNet with the schedule of
# the other rows: AP 11.8 / AP50 21.4 / AP75 11.6.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '_base_/datasets/visdrone_detection.py',
    '_base_/schedules/schedule_1x_90k.py',
    '_base_/iter_runtime.py',
]
model = dict(bbox_head=dict(num_classes=10), test_cfg=dict(max_per_img=500))
