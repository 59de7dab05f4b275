"""configs/drop_in.md: this package's modules in mmdet's own configs.

Each is a stock config and the lines that a user adds to it: one training step, with and without
objects, and one inference step. tests/helpers/drop_in.py has the lines and writes the page.
"""

import pytest
import torch
from helpers.drop_in import CHANGES, config, matrix, page
from helpers.paths import ROOT
from mmdet.models.dense_heads import DDODHead
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.logging import MessageHub

from misalign_det.apis.model_check import check_model

CASES = [(module, name) for module, changes in CHANGES.items() for name in changes]


def detector(folder, name, change):
    """The stock model with the change, untrained, on inputs of one size."""
    path = folder / "config.py"
    path.write_text(config(name, change))
    model = Config.fromfile(path).model
    check_model(model)
    model.backbone.init_cfg = None
    if "batch_augments" in model.data_preprocessor:
        model.data_preprocessor.batch_augments = None
    torch.manual_seed(0)
    built = MODELS.build(model)
    built.init_weights()
    MessageHub.get_current_instance().update_info("epoch", 0)  # TOOD's warm-up asks for it
    return built


@pytest.mark.slow
@pytest.mark.parametrize(("module", "name"), CASES)
def test_training_and_inference(tmp_path, module, name):
    model = detector(tmp_path, name, CHANGES[module][name])
    # DDOD's deformable layers want three locations on the coarsest level.
    size = 384 if isinstance(getattr(model, "bbox_head", None), DDODHead) else 128
    for counts in ([3, 1], [0, 0]):
        if name == "Faster R-CNN" and not any(counts):
            continue  # mmdet's own part
        packed = demo_mm_inputs(
            2, image_shapes=[(3, size, size)] * 2, num_items=counts, num_classes=80
        )
        losses = model(**model.data_preprocessor(packed, training=True), mode="loss")
        total, _ = model.parse_losses(losses)
        assert total.isfinite()
        model.zero_grad()
        total.backward()
        part = model.roi_head if name == "Faster R-CNN" else model.bbox_head
        assert any(p.grad is not None and p.grad.any() for p in part.parameters())
    model.eval()
    with torch.no_grad():
        found = model(**model.data_preprocessor(packed, training=False), mode="predict")
    assert len(found) == 2
    for sample in found:
        assert sample.pred_instances.bboxes.isfinite().all()


@pytest.mark.parametrize("name", CHANGES["misalign"])
def test_misalign_has_the_recommended_settings(tmp_path, name):
    path = tmp_path / "config.py"
    path.write_text(config(name, CHANGES["misalign"][name]))
    found = Config.fromfile(path).model
    models = ROOT / "configs/_base_/models"
    meant = Config.fromfile(models / "misalign_r50_fpn.py").model
    plain = Config.fromfile(models / "triplehead_r50_fpn.py").model.bbox_head
    settings = {key for key, value in meant.bbox_head.items() if plain.get(key) != value}
    assert settings == set(found.bbox_head) - {"type", "num_classes", "in_channels", "strides"}
    levels = len(found.bbox_head.strides)
    for key in settings - {"init_distance"}:
        assert found.bbox_head[key] == meant.bbox_head[key]
    assert found.bbox_head.init_distance == meant.bbox_head.init_distance[:levels]
    assert found.train_cfg.assigner == meant.train_cfg.assigner
    assert found.test_cfg.box_voting == meant.test_cfg.box_voting


def test_the_page_and_the_matrix_are_what_is_tested_here():
    write = "run python tests/helpers/drop_in.py"
    assert (ROOT / "configs/drop_in.md").read_text(encoding="utf-8") == page(), write
    readme = (ROOT / "misalign_det/README.md").read_text(encoding="utf-8")
    assert matrix() in readme, f"put this into the README:\n{matrix()}"
