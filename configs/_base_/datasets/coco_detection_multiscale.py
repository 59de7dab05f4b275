# COCO 2017 with multi-scale training: the short side between 640 and 800 pixels, as in FCOS's
# long schedule. Testing stays at 1333x800.
_base_ = 'coco_detection.py'

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='RandomResize', scale=[(1333, 640), (1333, 800)], keep_ratio=True),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ]
    )
)
