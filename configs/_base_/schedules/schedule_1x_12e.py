# mmdet's RetinaNet schedule ("1x"): 12 epochs of 16 images a step, SGD 0.01, linear warm-up over
# 500 steps, decay by 10 after 8 and 11 epochs.
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'
optim_wrapper = dict(optimizer=dict(lr=0.01))
