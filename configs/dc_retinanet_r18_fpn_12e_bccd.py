# RetinaNet with the dynamic coefficient on the classification loss of its positives.
_base_ = ['retinanet_r18_fpn_12e_bccd.py', '_base_/dc_loss.py', '_base_/channels_last.py']
custom_imports = dict(imports=['misalign_det'])
model = dict(bbox_head=dict(type='DCRetinaHead', loss_cls={{_base_.dc_loss}}))
