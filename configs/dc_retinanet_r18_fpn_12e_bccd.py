# RetinaNet with the dynamic coefficient on its positives' classification loss.
_base_ = 'plain_retinanet_r18_fpn_12e_bccd.py'
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True,
            type='DCLoss',
            loss=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        )
    )
)
