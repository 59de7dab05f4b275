"""A split under several suppressions: the same detections as one by one."""

import copy

import pytest
import torch
from mmdet.registry import DATASETS, METRICS, MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import BaseMetric
from torch import nn

from misalign_det.engine.annotation_checks import InputError
from misalign_det.engine.nms_study import evaluate_under


@METRICS.register_module(force=True)
class KeepsDetections(BaseMetric):
    """Gives back what it was shown."""

    def process(self, data_batch, data_samples):
        self.results += [copy.deepcopy(s["pred_instances"]) for s in data_samples]

    def compute_metrics(self, results):
        return dict(found=results)


class Images(torch.utils.data.Dataset):
    metainfo = dict(classes=("a", "b", "c"))

    def __len__(self):
        return 5

    def __getitem__(self, index):
        torch.manual_seed(index)
        packed = demo_mm_inputs(1, image_shapes=[(3, 64, 96)], num_items=[2], num_classes=3)
        return dict(inputs=packed["inputs"][0], data_samples=packed["data_samples"][0])


def config():
    DATASETS.register_module(name="FiveImages", module=Images, force=True)
    loader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type="DefaultSampler", shuffle=False),
        collate_fn=dict(type="pseudo_collate"),
        dataset=dict(type="FiveImages"),
    )
    return Config(dict(val_dataloader=loader, val_evaluator=dict(type="KeepsDetections")))


def small_detector():
    torch.manual_seed(0)
    strides = [8, 16, 32, 64, 128]
    model = MODELS.build(
        ConfigDict(
            type="FCOS",
            data_preprocessor=dict(type="DetDataPreprocessor", pad_size_divisor=32),
            backbone=dict(type="ResNet", depth=18, base_channels=8),
            neck=dict(type="FPN", in_channels=[8, 16, 32, 64], out_channels=8, start_level=1,
                      add_extra_convs="on_output", num_outs=5),
            bbox_head=dict(type="TripleHead", num_classes=3, in_channels=8, feat_channels=8,
                           stacked_convs=2, strides=strides,
                           norm_cfg=dict(type="GN", num_groups=2)),
            test_cfg=dict(nms_pre=100, min_bbox_size=0, score_thr=0.0, max_per_img=20,
                          nms=dict(type="nms", iou_threshold=0.6)),
        )  # fmt: skip
    )
    model.init_weights()
    return model.eval()


def test_each_suppression_as_if_it_were_the_only_one():
    model, cfg = small_detector(), config()
    suppressions = [
        dict(type="nms", iou_threshold=0.6),
        dict(type="CLBalancedNMS", iou_threshold=0.6, gamma=0),
        dict(type="CLBalancedNMS", iou_threshold=0.3, gamma=1.0, sigma=0.05),
    ]
    results = evaluate_under(model, cfg, "val", suppressions, progress=False)
    for nms, result in zip(suppressions, results):
        model.bbox_head.test_cfg.nms = nms
        assert len(result["found"]) == 5
        for index, found in enumerate(result["found"]):
            (expected,) = model.test_step(pseudo_collate([Images()[index]]))
            for key in ("bboxes", "scores", "labels"):
                theirs = expected.pred_instances[key]
                torch.testing.assert_close(found[key], theirs, rtol=1e-4, atol=1e-3)
    first, same, other = (result["found"] for result in results)
    assert all(torch.equal(a["bboxes"], b["bboxes"]) for a, b in zip(first, same))
    assert any(len(a["bboxes"]) != len(b["bboxes"]) for a, b in zip(first, other))


def test_two_stage_detectors_are_refused():
    with pytest.raises(InputError, match="one-stage"):
        evaluate_under(nn.Identity(), config(), "val", [])
