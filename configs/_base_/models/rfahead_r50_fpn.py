# FCOS with the RFA head and spatial alignment of the labels (Toward Minimal Misalignment).
_base_ = 'fcos_r50_fpn.py'
custom_imports = dict(imports=['misalign_det'])
model = dict(
    bbox_head=dict(
        _delete_=True,
        type='RFAHead',
        num_classes=80,
        in_channels=256,
        feat_channels=256,
        stacked_convs=4,
        strides=[8, 16, 32, 64, 128],
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
        loss_iou=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
    ),
    train_cfg=dict(assigner=dict(type='SpatialAlignAssigner', topk=9, num_levels=2)),
)
