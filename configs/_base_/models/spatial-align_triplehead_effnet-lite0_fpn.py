# The triple head with SpatialAlign's positives in place of JLA's.
_base_ = 'triplehead_effnet-lite0_fpn.py'
model = dict(
    train_cfg=dict(assigner=dict(_delete_=True, type='SpatialAlignAssigner', topk=9, num_levels=2))
)
