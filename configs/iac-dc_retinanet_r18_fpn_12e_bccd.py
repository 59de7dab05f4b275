# RetinaNet with both; CLBalancedNMS is chosen when it is tested.
_base_ = 'dc_retinanet_r18_fpn_12e_bccd.py'
model = dict(train_cfg=dict(assigner=dict(type='IACAssigner')))
