# mmdet's RetinaNet with the head that paper C's parts need; with mmdet's own loss, assigner and NMS
# it is mmdet's RetinaNet.
_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'
custom_imports = dict(imports=['misalign_det'], allow_failed_imports=False)
model = dict(bbox_head=dict(type='DCRetinaHead'))
