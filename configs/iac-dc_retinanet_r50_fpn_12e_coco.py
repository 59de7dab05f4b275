# Dynamic Coefficient Loss, + DC loss, table 2: AP 37.1 / 56.3 / 39.7.
_base_ = ['iac_retinanet_r50_fpn_12e_coco.py', '_base_/dc_loss.py']
model = dict(bbox_head=dict(loss_cls={{_base_.dc_loss}}))
