"""Writes the checkpoints beside this file, by a training at commit deb3dd5 (version 0.1.0).

    git worktree add --detach FOLDER deb3dd5
    cd EMPTY_FOLDER && OMP_NUM_THREADS=1 PYTHONPATH=FOLDER python .../tests/data/checkpoints/record.py

Two epochs of two steps. HEAD.pth is what mmengine's Runner wrote after the first one; HEAD.npz holds
the detections of that checkpoint on two images, and the head's weights and the losses at the end of
the second epoch. The configs spell every argument as version 0.1.0 did.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.runner import Runner

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
from helpers.old_checkpoints import write_images

CONFIG = """
default_scope = 'mmdet'
custom_imports = dict(imports=['misalign_det'], allow_failed_imports=False)
model = dict(
    type='FCOS',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[100.0] * 3, std=[50.0] * 3, pad_size_divisor=32),
    backbone=dict(
        type='ResNet', depth=18, base_channels=2, num_stages=3, strides=(1, 2, 2),
        dilations=(1, 1, 1), out_indices=(0, 1, 2),
        style='pytorch'),
    neck=dict(
        type='FPN', in_channels=[2, 4, 8], out_channels=8, start_level=1,
        add_extra_convs='on_output', num_outs=5),
    bbox_head=dict(
        num_classes=3, in_channels=8, feat_channels=8, stacked_convs=2,
        strides=[8, 16, 32, 64, 128], norm_cfg=dict(type='GN', num_groups=2),
        init_cfg=dict(
            type='Normal', layer='Conv2d', std=0.15,
            override=[
                dict(type='Normal', name='conv_cls', std=0.3, bias_prob=0.1),
                dict(type='Normal', name='conv_reg', std=0.05)]),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        HEAD),
    train_cfg=dict(assigner=dict(ASSIGNER)),
    test_cfg=dict(
        nms_pre=100, min_bbox_size=0, score_thr=0.02, max_per_img=20,
        nms=dict(type='nms', iou_threshold=0.6)))
data_root = 'data/'
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')]
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset', data_root=data_root, ann_file='annotations.json',
        data_prefix=dict(img='images/'), metainfo=dict(classes=('disc', 'square', 'bar')),
        pipeline=pipeline))
test_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset', data_root=data_root, ann_file='annotations.json',
        data_prefix=dict(img='images/'), metainfo=dict(classes=('disc', 'square', 'bar')),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(128, 96), keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs',
                 meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]))
test_evaluator = dict(type='CocoMetric', ann_file=data_root + 'annotations.json', metric='bbox')
test_cfg = dict(type='TestLoop')
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(bias_lr_mult=2.0, bias_decay_mult=0.0))
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='SafeCheckpointHook', interval=1),
    epoch_seed=dict(type='EpochSeedHook'),
    finite_loss=dict(type='FiniteLossHook'))
randomness = dict(seed=0)
log_level = 'WARNING'
experiment_name = 'NAME'
work_dir = 'work_dirs'
"""
HEADS = {
    "TripleHead": (
        "type='TripleHead', rfa_position='first', prior_distance=3.0, offset_gradient=0.1, "
        "confidence_target='coarse', with_confidence=True, loss_bbox=dict(type='IoULoss'), "
        "loss_confidence=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=0.5)",
        "type='JLAAssigner', boundary='component', precision_init=1.0, gt_balance=0.5",
    ),
    "RFAHead": (
        "type='RFAHead', rfa_position='first', prior_distance=3.0, with_quality=True, "
        "quality_on='classification', "
        "loss_quality=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=0.5)",
        "type='SpatialAlignAssigner', boundary='density_peak'",
    ),
}


def detections(model, cfg):
    """Boxes, scores and labels of the first two images, by name."""
    loader = Runner.build_dataloader(cfg.test_dataloader)
    found = {}
    for number, batch in zip(range(2), loader):
        (result,) = model.test_step(batch)
        for key in ("bboxes", "scores", "labels"):
            found[f"{key}{number}"] = result.pred_instances[key].numpy()
    return found


def main():
    from misalign_det.engine.detector import load_detector

    torch.set_num_threads(1)
    register_all_modules()
    write_images(Path("data"))
    for name, (head, assigner) in HEADS.items():
        text = CONFIG.replace("HEAD", head).replace("ASSIGNER", assigner)
        text = text.replace("NAME", name)
        cfg = Config.fromstring(text, ".py")
        cfg.work_dir = f"work_dirs/{name}"
        runner = Runner.from_cfg(cfg)
        runner.train()
        last = runner.model.bbox_head.state_dict()
        record = {f"end.{key}": value.numpy() for key, value in last.items()}
        for key, history in runner.message_hub.log_scalars.items():
            if "loss" in key:
                record[f"end.{key}"] = history.current()
        path = Path(cfg.work_dir, "epoch_1.pth")
        record.update(detections(load_detector(cfg, str(path)), cfg))
        (HERE / f"{name}.pth").write_bytes(path.read_bytes())
        np.savez_compressed(HERE / f"{name}.npz", **record)


if __name__ == "__main__":
    main()
