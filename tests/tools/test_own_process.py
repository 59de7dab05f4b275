"""Every analysis tool and benchmark as a user starts it: the README's line, a process of its own.

Nothing is prepared for it: no default scope, no registered modules.
"""

import json
import re
import shlex
import sys

import pytest
from helpers.paths import ROOT
from helpers.tiny_detectors import image_with_objects, make_detector

READMES = [ROOT / "tools/README.md", ROOT / "tools/benchmarks/README.md"]
# What keeps a run short, by tool; and what it prints.
ANALYSIS = {
    "misalignment_report": ([], "The report:"),
    "misalignment": ([], "headroom"),
    "compare_ap": (["--resamples", "3"], "The interval contains 0"),
    "save_pictures": (["--num-images", "2"], "3 pictures"),
    "loss_maps": ([], "loss_maps_"),
    "receptive_field": (["--num-images", "1", "--num-objects", "1"], "receptive_field.png"),
    "figures": ([], "sensitivity_"),
    "tune_nms": (["--gamma", "1", "--sigma", "0.1", "--output-score", "own"], "no verdict"),
    "plot_curves": ([], "2 training and 1 evaluation"),
}
SMALL = ["--img-shape", "64", "96", "--repeats", "1"]
BENCHMARKS = {
    "nms": (["--num-boxes", "50", "--num-classes", "1", "--repeats", "1"], "CLBalancedNMS"),
    "mixture": (["--num-objects", "1", "--repeats", "1"], "scikit-learn"),
    "assignment": (
        [*SMALL, "--num-objects", "1", "--sizes", "large", "--num-classes", "3", "--without-paa"],
        "JLAAssigner",
    ),
    "step": (
        [*SMALL, "--batch-size", "1", "--num-objects", "2", "--modes", "train", "--models", "FCOS"],
        "training step",
    ),
    "variants": ([*SMALL, "--batch-size", "1", "--modes", "infer", "--variants", "plain"], "plain"),
    "refinement": (["--num-images", "1"], "largest difference"),
    "import_time": (["--repeats", "1"], "import misalign_det"),
}
SLOW = {"misalignment_report", "tune_nms", "figures", "receptive_field", "step", "variants",
        "refinement", "import_time"}  # fmt: skip


def marked(tools):
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in tools]


def line_of(name):
    """Words of the README's command that starts a tool."""
    pattern = rf"`python (tools/(?:analysis|benchmarks)/{name}\.py[^`]*)`"
    for readme in READMES:
        found = re.search(pattern, readme.read_text())
        if found:
            return shlex.split(found[1])
    raise AssertionError(f"no README says how to start {name}.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, shapes, call):
    """A folder with what the README's lines name: a detector, its detections, a run's log."""
    folder = tmp_path_factory.mktemp("user")
    config, checkpoint = make_detector(folder, "TripleHead", threshold=0.01, spread=0.3)
    loader = "dict(num_workers=0, persistent_workers=False)"
    whole = folder / "tested.py"
    whole.write_text(
        f"_base_ = ['{config}']\n"
        f"val_dataloader = {loader}\ntest_dataloader = {loader}\ntrain_dataloader = None\n"
        "val_cfg = dict(type='ValLoop')\ntest_cfg = dict(type='TestLoop')\n"
    )
    (folder / "data").mkdir()
    (folder / "data/quickstart").symlink_to(shapes)
    test = [sys.executable, ROOT / "tools/test.py", whole, checkpoint, "--out", "detections.pkl"]
    call(test, folder)
    (folder / "tta.pkl").symlink_to(folder / "detections.pkl")
    log = folder / "work_dirs/run/1/vis_data"
    log.mkdir(parents=True)
    rows = [dict(loss=2.0, step=1), dict(loss=1.0, step=2), {"coco/bbox_mAP": 0.1, "step": 2}]
    (log / "scalars.json").write_text("\n".join(map(json.dumps, rows)))
    words = {
        "$CONFIG": whole,
        "$CHECKPOINT": checkpoint,
        "work_dirs/$CONFIG": "work_dirs/run",
        "000001.jpg": image_with_objects(shapes)[0],
    }
    return folder, words


@pytest.mark.parametrize("name", marked(ANALYSIS))
def test_analysis(folder, call, name):
    cwd, words = folder
    extra, said = ANALYSIS[name]
    tool, *arguments = [*line_of(name), *extra]
    text = call([sys.executable, ROOT / tool, *(words.get(a, a) for a in arguments)], cwd)
    assert said in text and "Traceback" not in text


@pytest.mark.parametrize("name", marked(BENCHMARKS))
def test_benchmark(folder, call, name):
    cwd, words = folder
    extra, said = BENCHMARKS[name]
    tool, *arguments = line_of(name)
    text = call([sys.executable, ROOT / tool, *(words.get(a, a) for a in arguments), *extra], cwd)
    assert said in text and "Traceback" not in text


def test_every_tool_is_tried():
    """cross_validate.py is tried below; replay_step.py needs a step that failed."""
    for part, tried in (("analysis", [*ANALYSIS, "cross_validate", "replay_step"]),
                        ("benchmarks", BENCHMARKS)):  # fmt: skip
        names = {path.stem for path in (ROOT / "tools" / part).glob("*.py")
                 if "__main__" in path.read_text()}  # fmt: skip
        assert names == set(tried)


@pytest.mark.slow
def test_cross_validation_of_a_wrapped_set(tiny_config, call, tmp_path):
    config = tmp_path / "wrapped.py"
    config.write_text(
        f"_base_ = ['{tiny_config}']\n"
        "train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=2,\n"
        "    dataset={{_base_.train_dataloader.dataset}}))\n"
    )
    tool = ROOT / "tools/analysis/cross_validate.py"
    options = ["--folds", "2", "--only", "1", "--grid", "optim_wrapper.optimizer.lr=0.001"]
    text = call([sys.executable, tool, config, *options], tmp_path)
    assert "==> fold0" in text and "+- nan" in text
    assert (tmp_path / "work_dirs/cv_wrapped/results.json").is_file()


def test_wrong_classes_are_one_line(folder, call):
    cwd, words = folder
    tool = ROOT / "tools/analysis/misalignment.py"
    annotations = "data/quickstart/annotations/instances_val.json"
    command = [sys.executable, tool, "detections.pkl", "--ann-file", annotations]
    text = call([*command, "--classes", "gnu"], cwd, status=1)
    assert "misalignment.py: error: the annotation file has no category 'gnu'" in text
    assert "Traceback" not in text
