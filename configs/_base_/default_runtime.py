# mmdet's runtime with checkpoints that a full disk or a kill cannot leave half-written, and a stop
# before a loss that is not finite spoils the weights. A resumed run is the uninterrupted one.
_base_ = 'mmdet::_base_/default_runtime.py'

default_hooks = dict(
    logger=dict(interval=10),  # small sets have few steps an epoch
    checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=3),
    epoch_seed=dict(type='EpochSeedHook'),
    finite_loss=dict(type='RecordInvalidLossHook'),
)
