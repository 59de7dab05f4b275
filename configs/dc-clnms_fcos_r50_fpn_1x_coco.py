# FCOS with centerness, + DC loss and CL-balanced NMS.
_base_ = 'fcos_r50_fpn_1x_coco.py'
model = dict(
    bbox_head=dict(
        type='DCFCOSHead',
        loss_cls=dict(
            _delete_=True,
            type='DCLoss',
            loss=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        ),
    ),
    test_cfg=dict(nms=dict(type='CLBalancedNMS', iou_threshold=0.6)),
)
