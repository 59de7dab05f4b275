"""Several kinds of NMS in one pass give the detections of each one alone."""

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from torch import nn

from misalign_det.analysis.nms_comparison import configured_nms, detections_under
from misalign_det.errors import InputError


class Images(torch.utils.data.Dataset):
    metainfo = dict(classes=("a", "b", "c"))

    def __len__(self):
        return 5

    def __getitem__(self, index):
        torch.manual_seed(index)
        packed = demo_mm_inputs(1, image_shapes=[(3, 64, 96)], num_items=[2], num_classes=3)
        sample = packed["data_samples"][0]
        sample.set_metainfo(dict(img_id=f"img_{index}"))
        return dict(inputs=packed["inputs"][0], data_samples=sample)

    def get_data_info(self, index):
        return dict(img_id=f"img_{index}")


def config(**sampler):
    DATASETS.register_module(name="FiveImages", module=Images, force=True)
    loader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type="DefaultSampler", **{"shuffle": False, **sampler}),
        collate_fn=dict(type="pseudo_collate"),
        dataset=dict(type="FiveImages"),
    )
    return Config(dict(val_dataloader=loader))


def small_detector():
    torch.manual_seed(0)
    strides = [8, 16, 32, 64, 128]
    model = MODELS.build(
        ConfigDict(
            type="FCOS",
            data_preprocessor=dict(type="DetDataPreprocessor", pad_size_divisor=32),
            backbone=dict(type="ResNet", depth=18, base_channels=8),
            neck=dict(
                type="FPN",
                in_channels=[8, 16, 32, 64],
                out_channels=8,
                start_level=1,
                add_extra_convs="on_output",
                num_outs=5,
            ),
            bbox_head=dict(
                type="TripleHead",
                num_classes=3,
                in_channels=8,
                feat_channels=8,
                stacked_convs=2,
                strides=strides,
                norm_cfg=dict(type="GN", num_groups=2),
            ),
            test_cfg=dict(
                nms_pre=100,
                min_bbox_size=0,
                score_thr=0.0,
                max_per_img=20,
                nms=dict(type="nms", iou_threshold=0.6),
            ),
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
    results = detections_under(model, cfg, "val", suppressions, progress=False)
    for nms, result in zip(suppressions, results):
        model.bbox_head.test_cfg.nms = nms
        assert [found["img_id"] for found in result] == [0, 1, 2, 3, 4]
        for index, found in enumerate(one["pred_instances"] for one in result):
            (expected,) = model.test_step(pseudo_collate([Images()[index]]))
            for key in ("bboxes", "scores", "labels"):
                theirs = expected.pred_instances[key]
                mine = torch.from_numpy(found[key])
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-3)
    first, same, other = ([one["pred_instances"] for one in result] for result in results)
    assert all((a["bboxes"] == b["bboxes"]).all() for a, b in zip(first, same))
    assert any(len(a["bboxes"]) != len(b["bboxes"]) for a, b in zip(first, other))


def test_two_stage_detectors_are_refused():
    with pytest.raises(InputError, match="one-stage"):
        detections_under(nn.Identity(), config(), "val", [])
    with pytest.raises(InputError, match="one-stage"):
        configured_nms(nn.Identity())


def test_the_detectors_own_suppression():
    model = small_detector()
    own = configured_nms(model)
    assert own == dict(type="nms", iou_threshold=0.6)
    own["iou_threshold"] = 0.1  # a copy
    assert model.bbox_head.test_cfg.nms.iou_threshold == 0.6
    model.bbox_head.test_cfg.nms = None
    with pytest.raises(InputError, match="nothing is suppressed"):
        configured_nms(model)


def test_what_a_suppression_refuses_and_another_order_are_said():
    model = small_detector()
    with pytest.raises(InputError, match="gamma"):
        wrong = dict(type="CLBalancedNMS", iou_threshold=0.6, gamma=-1)
        detections_under(model, config(), "val", [wrong], progress=False)
    before = model.bbox_head.test_cfg.nms
    with pytest.raises(InputError, match="in order"):
        detections_under(model, config(shuffle=True), "val", [before], progress=False)
    assert model.bbox_head.test_cfg.nms == dict(type="nms", iou_threshold=0.6)


def test_the_network_runs_once_an_image(monkeypatch):
    model, seen = small_detector(), []
    forward = model.extract_feat
    monkeypatch.setattr(model, "extract_feat", lambda x: (seen.append(len(x)), forward(x))[1])
    own = configured_nms(model)
    found = detections_under(model, config(), "val", [own, own, own], progress=False)
    assert seen == [2, 2, 1] and [len(one) for one in found] == [5, 5, 5]
