# mmdet's runtime. tools/train.py adds the hooks that make a run safe to interrupt: see
# configs/README.md, "What every training run has".
_base_ = 'mmdet::_base_/default_runtime.py'

default_hooks = dict(
    logger=dict(interval=10),  # small data sets have few steps per epoch
    checkpoint=dict(interval=1, max_keep_ckpts=3),
)
