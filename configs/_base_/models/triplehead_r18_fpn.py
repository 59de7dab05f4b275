# A ResNet-18 with a 64-channel FPN, trained from scratch: the small models of BCCD and of the
# generated set. Everything that a head's config of the R50 models says is scaled in proportion.
_base_ = 'triplehead_r50_fpn.py'
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(
        depth=18,
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        style='pytorch',
        # Blocks that start as the identity cost a short training from scratch most of its depth.
        zero_init_residual=False,
        init_cfg=None,
    ),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=64),
    bbox_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=dict(type='GN', num_groups=16, requires_grad=True),
    ),
)
