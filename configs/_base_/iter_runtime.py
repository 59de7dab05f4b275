# default_runtime.py for schedules that count steps (schedule_1x_90k.py, voc_45k.py).
_base_ = './default_runtime.py'

default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=5000),
)
log_processor = dict(by_epoch=False)
