# FCOS with centerness, + DC loss and CL-balanced NMS.
_base_ = ['fcos_r50_fpn_1x_coco.py', '_base_/dc_loss.py']
custom_imports = dict(imports=['misalign_det'])
model = dict(
    bbox_head=dict(type='DCFCOSHead', loss_cls={{_base_.dc_loss}}),
    test_cfg=dict(nms=dict(type='CLBalancedNMS', iou_threshold=0.6)),
)
