# RetinaNet with IAC, the dynamic coefficient and CLBalancedNMS.
_base_ = ['retinanet_effnet-lite0_fpn.py', '../dc_loss.py']
model = dict(
    bbox_head=dict(type='DCRetinaHead', loss_cls={{_base_.dc_loss}}),
    train_cfg=dict(assigner=dict(type='IACAssigner')),
    test_cfg=dict(nms=dict(_delete_=True, type='CLBalancedNMS', iou_threshold=0.6)),
)
