# GFL with the dynamic coefficient on the classification loss of its positives.
_base_ = 'gfl_effnet-lite0_fpn.py'
model = dict(
    bbox_head=dict(
        type='DCGFLHead',
        loss_cls=dict(
            _delete_=True,
            type='DCLoss',
            loss=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        ),
    )
)
