# HIT-UAV: thermal images from the air, 640 x 512, 4 classes of small objects. 1000 of its images:
# 600 train, 200 val (during training), 200 test (tools/test.py), in COCO format:
#   ROOT/annotations/instances_{train,val,test}.json    ROOT/images/*.jpg
# ROOT: environment variable MISALIGN_DET_HIT_UAV, or --cfg-options data_root=..., or
# data/hit_uav.
# Training takes random crops of 256 x 256, a fifth of an image, so that a step costs as much as on
# the other small data sets.
_base_ = 'bccd_detection.py'
data_root = '{{$MISALIGN_DET_HIT_UAV:data/hit_uav}}/'
metainfo = dict(
    classes=('Bicycle', 'Car', 'OtherVehicle', 'Person'),
    palette=[(220, 60, 60), (60, 110, 230), (60, 180, 75), (240, 200, 40)],
)
common = dict(data_root=data_root, metainfo=metainfo, data_prefix=dict(img='images/'))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(640, 512), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(256, 256), allow_negative_crop=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(640, 512), keep_ratio=True),
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
