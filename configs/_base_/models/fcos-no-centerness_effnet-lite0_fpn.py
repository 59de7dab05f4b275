# The small FCOS without its centerness branch, as JLA and IoU branches replace it.
_base_ = 'fcos_effnet-lite0_fpn.py'
model = dict(
    bbox_head=dict(type='FCOSHeadWithoutCenterness'),
)
