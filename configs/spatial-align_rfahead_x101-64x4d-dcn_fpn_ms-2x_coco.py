# Toward Minimal Misalignment, test-dev: AP 49.9. Deformable convolutions in the last three
# stages.
_base_ = 'spatial-align_rfahead_x101-64x4d_fpn_ms-2x_coco.py'
model = dict(
    backbone=dict(
        dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
    )
)
