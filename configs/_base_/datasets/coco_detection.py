# COCO 2017 in the official layout, 1333 x 800, 2 images per GPU. A part of COCO in the same layout
# (for example 128 + 128 images) needs only another root. Root: environment variable
# MISALIGN_DET_COCO, or --cfg-options data_root=..., else data/coco.
_base_ = 'mmdet::_base_/datasets/coco_detection.py'

data_root = '{{$MISALIGN_DET_COCO:data/coco}}/'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]

train_dataloader = dict(dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
