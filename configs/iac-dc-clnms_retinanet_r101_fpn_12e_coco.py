# Dynamic Coefficient Loss, + CL-balanced NMS, test-dev: AP 40.6 / 60.2 / 43.5.
_base_ = 'iac-dc_retinanet_r101_fpn_12e_coco.py'
model = dict(test_cfg=dict(nms=dict(type='CLBalancedNMS', iou_threshold=0.5)))
