# mmdet's YOLOX head on the small backbone and FPN, on strides 8, 16 and 32, with a tower per level.
# Losses are the head's defaults. Test settings are those of the other small models.
_base_ = 'fcos_effnet-lite0_fpn.py'
model = dict(
    type='YOLOX',
    neck=dict(add_extra_convs=False, num_outs=3),
    bbox_head=dict(
        _delete_=True,
        type='YOLOXHead',
        num_classes=80,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        strides=[8, 16, 32],
        norm_cfg=dict(type='GN', num_groups=16, requires_grad=True),
        act_cfg=dict(type='Swish'),
    ),
    train_cfg=dict(assigner=dict(type='SimOTAAssigner', center_radius=2.5)),
)
