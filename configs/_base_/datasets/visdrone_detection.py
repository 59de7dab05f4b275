# VisDrone-DET 2019: images from drones, 10 classes of small objects, 1333 x 800, 2 images per GPU.
# Annotations of tools/dataset_converters/visdrone.py beside the folders as they are downloaded:
#   ROOT/annotations/instances_{train,val,test}.json    ROOT/VisDrone2019-DET-{train,val,test-dev}/
# ROOT: environment variable MISALIGN_DET_VISDRONE, or --cfg-options data_root=..., else
# data/visdrone. CocoMetric counts 100 detections of an image and class. The official evaluation has
# 500 of an image and leaves out ignored regions:
#   python tools/test.py CONFIG CHECKPOINT --cfg-options test_evaluator.type=VisDroneMetric
_base_ = 'coco_detection.py'

data_root = '{{$MISALIGN_DET_VISDRONE:data/visdrone}}/'
metainfo = dict(
    classes=(
        'pedestrian',
        'people',
        'bicycle',
        'car',
        'van',
        'truck',
        'tricycle',
        'awning-tricycle',
        'bus',
        'motor',
    ),
)
common = dict(data_root=data_root, metainfo=metainfo, data_prefix=dict(img=''))

train_dataloader = dict(dataset=dict(**common, ann_file='annotations/instances_train.json'))
val_dataloader = dict(dataset=dict(**common, ann_file='annotations/instances_val.json'))
test_dataloader = val_dataloader

val_evaluator = dict(
    _delete_=True, type='CocoMetric', ann_file=data_root + 'annotations/instances_val.json'
)
test_evaluator = val_evaluator
del common
