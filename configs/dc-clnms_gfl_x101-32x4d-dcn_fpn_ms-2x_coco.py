# Dynamic Coefficient Loss, table 1, last row: AP 48.9 / 67.8 / 53.2 on test-dev; GFL alone 48.2.
_base_ = 'mmdet::gfl/gfl_x101-32x4d-dconv-c4-c5_fpn_ms-2x_coco.py'
custom_imports = dict(imports=['misalign_det'])
data_root = '{{$MISALIGN_DET_COCO:data/coco}}/'
model = dict(
    bbox_head=dict(
        type='DCGFLHead',
        loss_cls=dict(
            _delete_=True,
            type='DCLoss',
            loss=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        ),
    ),
    test_cfg=dict(nms=dict(type='CLBalancedNMS', iou_threshold=0.6)),
)
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=3))
