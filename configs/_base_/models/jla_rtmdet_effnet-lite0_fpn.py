# RTMDet with joint-loss-aware assignment.
_base_ = 'rtmdet_effnet-lite0_fpn.py'
model = dict(
    train_cfg=dict(assigner=dict(_delete_=True, type='JLAAssigner', score_format='logits'))
)
