# Dynamic Coefficient Loss, + CL-balanced NMS, table 2: AP 37.5 / 56.9 / 40.0.
_base_ = 'iac-dc_retinanet_r50_fpn_12e_coco.py'
model = dict(test_cfg=dict(nms=dict(type='CLBalancedNMS', iou_threshold=0.5)))
