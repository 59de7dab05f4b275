# mmdet's "1x" with RetinaNet's learning rate: 12 epochs, 16 images per step, SGD 0.01, linear
# warm-up over 500 steps, decay by 10 after 8 and 11 epochs.
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'
optim_wrapper = dict(optimizer=dict(lr=0.01))
