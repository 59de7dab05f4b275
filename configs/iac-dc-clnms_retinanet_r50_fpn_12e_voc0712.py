# Dynamic Coefficient Loss, + CL-balanced NMS, table 2, VOC 2007 test: mAP 79.7.
_base_ = 'iac-dc_retinanet_r50_fpn_12e_voc0712.py'
model = dict(test_cfg=dict(nms=dict(type='CLBalancedNMS', iou_threshold=0.5)))
