# Playing cards on a table: 6 classes, few large objects per image, in COCO format:
#   ROOT/annotations/instances_{train,val,test}.json    ROOT/images/*.jpg
# ROOT: environment variable MISALIGN_DET_CARDS, or --cfg-options data_root=..., else data/cards.
_base_ = 'bccd_detection.py'
data_root = '{{$MISALIGN_DET_CARDS:data/cards}}/'
metainfo = dict(
    classes=('ace', 'jack', 'king', 'nine', 'queen', 'ten'),
    palette=[
        (220, 60, 60),
        (60, 110, 230),
        (60, 180, 75),
        (240, 200, 40),
        (200, 80, 200),
        (60, 200, 200),
    ],
)
common = dict(data_root=data_root, metainfo=metainfo, data_prefix=dict(img='images/'))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(320, 320), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(320, 320), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]

train_dataloader = dict(dataset=dict(**common, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**common, pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(**common, pipeline=test_pipeline))

val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = dict(ann_file=data_root + 'annotations/instances_test.json')
del common
