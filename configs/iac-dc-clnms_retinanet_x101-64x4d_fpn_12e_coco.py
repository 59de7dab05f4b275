# Dynamic Coefficient Loss, + CL-balanced NMS, test-dev: AP 42.2 / 62.5 / 45.1.
_base_ = 'iac-dc_retinanet_x101-64x4d_fpn_12e_coco.py'
model = dict(test_cfg=dict(nms=dict(type='CLBalancedNMS', iou_threshold=0.5)))
