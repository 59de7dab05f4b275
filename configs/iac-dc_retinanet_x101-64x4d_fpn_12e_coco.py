# Dynamic Coefficient Loss, + DC loss, on ResNeXt-101.
_base_ = ['iac_retinanet_x101-64x4d_fpn_12e_coco.py', '_base_/dc_loss.py']
model = dict(bbox_head=dict(loss_cls={{_base_.dc_loss}}))
