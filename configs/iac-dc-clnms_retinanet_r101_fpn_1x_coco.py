# Paper C, + CL-balanced NMS: AP 40.6 / 60.2 / 43.5 on test-dev.
_base_ = 'iac-dc_retinanet_r101_fpn_1x_coco.py'
model = dict(test_cfg=dict(nms=dict(type='CLBalancedNMS', iou_threshold=0.5)))
