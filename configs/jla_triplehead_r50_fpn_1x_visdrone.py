# Triple-head Network, table 7: AP 19.0 / AP50 32.7 / AP75 18.7.
_base_ = [
    '_base_/models/triplehead_r50_fpn.py',
    '_base_/datasets/visdrone_detection.py',
    '_base_/schedules/schedule_1x_90k.py',
    '_base_/iter_runtime.py',
]
model = dict(bbox_head=dict(num_classes=10), test_cfg=dict(max_per_img=500))
