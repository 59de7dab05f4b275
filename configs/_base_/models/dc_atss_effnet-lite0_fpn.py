# ATSS with the dynamic coefficient on the classification loss of its positives.
_base_ = ['atss_effnet-lite0_fpn.py', '../dc_loss.py']
model = dict(bbox_head=dict(type='DCATSSHead', loss_cls={{_base_.dc_loss}}))
