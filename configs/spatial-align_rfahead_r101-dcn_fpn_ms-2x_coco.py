# Toward Minimal Misalignment, test-dev: AP 48.0. Deformable convolutions in the last three
# stages.
_base_ = 'spatial-align_rfahead_r101_fpn_ms-2x_coco.py'
model = dict(
    backbone=dict(
        dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
    )
)
