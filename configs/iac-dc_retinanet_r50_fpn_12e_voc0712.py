# Dynamic Coefficient Loss, + DC loss, table 2, VOC 2007 test: mAP 79.2.
_base_ = ['iac_retinanet_r50_fpn_12e_voc0712.py', '_base_/dc_loss.py']
model = dict(bbox_head=dict(loss_cls={{_base_.dc_loss}}))
