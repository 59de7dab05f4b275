# Dynamic Coefficient Loss, + DC loss, on ResNet-101.
_base_ = ['iac_retinanet_r101_fpn_12e_coco.py', '_base_/dc_loss.py']
model = dict(bbox_head=dict(loss_cls={{_base_.dc_loss}}))
