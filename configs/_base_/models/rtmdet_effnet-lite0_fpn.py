# mmdet's RTMDet head on the small backbone and FPN: towers shared by the levels, with group norm of
# their own per level. Test settings are those of the other small models.
_base_ = 'fcos_effnet-lite0_fpn.py'
model = dict(
    type='RTMDet',
    bbox_head=dict(
        _delete_=True,
        type='RTMDetSepBNHead',
        num_classes=80,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=dict(type='GN', num_groups=16, requires_grad=True),
        share_conv=True,
        exp_on_reg=True,
        pred_kernel_size=1,
        with_objectness=False,
        act_cfg=dict(type='SiLU', inplace=True),
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32, 64, 128]),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(type='DynamicSoftLabelAssigner', topk=13),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
)
