# PASCAL VOC: train on 07+12 trainval, test on 07 test, 1000 x 600, 2 images per GPU. Reported are
# AP50, AP75 and mAP over IoU 0.50:0.95, each with the area under the curve, as papers with "AP"
# on VOC do. Root: environment variable MISALIGN_DET_VOC, or --cfg-options data_root=..., else
# data/VOCdevkit; it holds VOC2007/ and VOC2012/.
_base_ = 'mmdet::_base_/datasets/voc0712.py'

data_root = '{{$MISALIGN_DET_VOC:data/VOCdevkit}}/'
dataset_type = 'VOCDataset'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(1000, 600), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]

# Without mmdet's RepeatDataset: an epoch is one pass over the images.
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        ignore_keys=['dataset_type'],  # differs between 2007 and 2012
        datasets=[
            dict(
                type=dataset_type,
                data_root=data_root,
                ann_file='VOC2007/ImageSets/Main/trainval.txt',
                data_prefix=dict(sub_data_root='VOC2007/'),
                filter_cfg=dict(filter_empty_gt=True, min_size=32, bbox_min_size=32),
                pipeline=train_pipeline,
            ),
            dict(
                type=dataset_type,
                data_root=data_root,
                ann_file='VOC2012/ImageSets/Main/trainval.txt',
                data_prefix=dict(sub_data_root='VOC2012/'),
                filter_cfg=dict(filter_empty_gt=True, min_size=32, bbox_min_size=32),
                pipeline=train_pipeline,
            ),
        ],
    )
)
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))

ious = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
val_evaluator = dict(iou_thrs=ious, eval_mode='area')
test_evaluator = dict(iou_thrs=ious, eval_mode='area')
