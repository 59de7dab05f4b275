"""The READMEs: snippets that build, links that lead somewhere, names that are all there."""

import inspect
import re
from pathlib import Path

import mmdet.registry
import pytest
from helpers.dense_head_cases import CROWD, losses_of, make_head
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import Registry

from misalign_det.apis.model_check import check_model
from misalign_det.utils.old_names import OLD_NAMES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PAGES = [
    "README.md",
    ".github/CONTRIBUTING.md",
    "configs/README.md",
    "configs/bccd.md",
    "configs/misalign.md",
    "configs/studies.md",
    "configs/peers.md",
    "configs/papers.md",
    "configs/study_data.md",
    "misalign_det/README.md",
    "tests/README.md",
    "tools/README.md",
    "tools/benchmarks/README.md",
    "tools/environment/README.md",
]


def test_the_first_page_is_short():
    lines = README.splitlines()
    assert len(lines) <= 150
    first = "\n".join(lines[:40])
    assert "bash tools/quickstart.sh" in first and "bash tests/run.sh" in first
    assert "pip install" in first


def registered_names():
    """Names under which this package registers classes, old names left out."""
    for registry in vars(mmdet.registry).values():
        if isinstance(registry, Registry):
            for name, cls in registry.module_dict.items():
                if inspect.isclass(cls) and cls.__module__.startswith("misalign_det."):
                    yield name


def test_the_first_page_names_everything_that_is_registered():
    names = {*registered_names(), "LoadImageOrSkip"} - {old.name for old in OLD_NAMES}
    assert len(names) > 20
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", README)] == []


def model_of(snippet, folder):
    path = folder / "config.py"
    path.write_text(snippet)
    model = Config.fromfile(path).model
    check_model(model)
    model.backbone.init_cfg = None
    if "batch_augments" in model.data_preprocessor:
        model.data_preprocessor.batch_augments = None
    return model


def test_every_main_module_has_a_snippet():
    names = ("JLAAssigner", "TripleHead", "DCLoss", "IACAssigner", "CLBalancedNMS", "RFAHead")
    assert all(any(name in snippet for snippet in SNIPPETS) for name in names)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: text.splitlines()[0])
def test_snippets_build(snippet, tmp_path):
    detector = MODELS.build(model_of(snippet, tmp_path))
    parts = {type(part).__name__ for part in detector.modules()}
    parts |= {type(getattr(detector.bbox_head, "assigner", None)).__name__}
    named = set(re.findall(r"type='(\w+)'", snippet)) - {"CLBalancedNMS"}
    assert named <= parts


@pytest.mark.slow
@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: text.splitlines()[0])
def test_snippets_train_and_detect(snippet, tmp_path):
    detector = MODELS.build(model_of(snippet, tmp_path))
    packed = demo_mm_inputs(2, image_shapes=[(3, 128, 128)] * 2, num_items=[3, 1], num_classes=80)
    losses = detector(**detector.data_preprocessor(packed, training=True), mode="loss")
    total, _ = detector.parse_losses(losses)
    total.backward()
    assert total.isfinite()
    detector.eval()
    found = detector(**detector.data_preprocessor(packed, training=False), mode="predict")
    assert all(sample.pred_instances.scores.isfinite().all() for sample in found)


def test_the_assigner_of_the_page_trains_a_head():
    page = (ROOT / "misalign_det/README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code, {"__name__": "my_assigner"})
    try:
        assigner = TASK_UTILS.build(dict(type="MyTopKAssigner", topk=3))
        head = make_head("LossAwareFCOSHead")
        head.assigner = assigner
        losses, total = losses_of(head, [CROWD])
        assert total.isfinite() and losses["loss_bbox"] > 0
    finally:
        del TASK_UTILS.module_dict["MyTopKAssigner"]


def anchors(text):
    """Anchors that GitHub gives to the headings of a page."""
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for link in links:
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        if anchor:
            assert anchor in set(anchors(target.read_text(encoding="utf-8"))), link


@pytest.mark.parametrize("page", PAGES)
def test_paths_in_pages_exist(page):
    """Of files in backticks and in commands."""
    text = (ROOT / page).read_text(encoding="utf-8")
    pattern = r"\b((?:misalign_det|tools|tests|configs|docker)/[\w./*-]*\.(?:py|sh|md|j2|yml))\b"
    # mmdet's and mmcv's own tests, and a config that the reader writes
    left_out = re.compile(r"tests/test_(models|engine|ops)/|configs/.*_mine\.py")
    for name in re.findall(pattern, text):
        found = [*ROOT.glob(name), *(ROOT / page).parent.glob(name)]
        assert left_out.match(name) or found, name
