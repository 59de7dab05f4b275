"""Curves from mmengine's log: parts of a run are joined, and what is missing is said."""

import importlib.util
import json

import cv2
import pytest
from helpers.paths import ROOT

_spec = importlib.util.spec_from_file_location(
    "plot_curves", ROOT / "tools" / "analysis" / "plot_curves.py"
)
plot_curves = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(plot_curves)


def log(work_dir, start, entries):
    folder = work_dir / start / "vis_data"
    folder.mkdir(parents=True)
    text = [e if isinstance(e, str) else json.dumps(e) for e in entries]
    (folder / "scalars.json").write_text("\n".join(text) + "\n")


def train(step, epoch=None, loss=1.0):
    extra = {} if epoch is None else {"epoch": epoch}
    return {"loss": loss, "loss_cls": loss / 2, "loss_bbox": loss / 2, "step": step, **extra}


def val(step, ap):
    return {"coco/bbox_mAP": ap, "coco/bbox_mAP_50": 2 * ap, "coco/bbox_mAP_s": 0.0, "step": step}


def test_epochs(tmp_path):
    log(tmp_path, "1", [train(10, 1), train(20, 2), val(2, 0.1), train(30, 3), val(3, 0.2)])
    losses, aps = plot_curves.read_scalars(tmp_path)
    assert [e["step"] for e in losses] == [10, 20, 30]
    assert [(e["x"], e["coco/bbox_mAP"]) for e in aps] == [(2, 0.1), (3, 0.2)]


@pytest.mark.parametrize("steps", [(0, 0), (20, 40)])
def test_steps_with_and_without_log_metric_by_epoch(tmp_path, steps):
    log(tmp_path, "1", [train(10), train(20), val(steps[0], 0.1), train(40), val(steps[1], 0.2)])
    _, aps = plot_curves.read_scalars(tmp_path)
    assert [e["x"] for e in aps] == [20, 40]


def test_resumed_run_is_joined_at_the_step_where_it_went_on(tmp_path):
    log(tmp_path, "1", [train(10, 1), val(1, 0.1), train(20, 2), val(2, 0.2), train(30, 3)])
    log(tmp_path, "2", [train(20, 2, loss=9), val(2, 0.3)])
    losses, aps = plot_curves.read_scalars(tmp_path)
    assert [(e["step"], e["loss"]) for e in losses] == [(10, 1.0), (20, 9)]
    assert [(e["x"], e["coco/bbox_mAP"]) for e in aps] == [(1, 0.1), (2, 0.3)]


def test_a_run_begun_anew_in_the_same_folder_is_shown_alone(tmp_path):
    log(tmp_path, "1", [train(10, 1), train(20, 2), val(2, 0.2)])
    log(tmp_path, "2", [train(10, 1, loss=5)])
    losses, aps = plot_curves.read_scalars(tmp_path)
    assert [e["loss"] for e in losses] == [5] and aps == []


def test_cut_off_line_is_named_and_skipped(tmp_path, capsys):
    log(tmp_path, "1", [train(10, 1), '{"loss": 1.0, "st'])
    losses, _ = plot_curves.read_scalars(tmp_path)
    assert len(losses) == 1
    assert "skipped line 2 of" in capsys.readouterr().err


def test_axes_are_labelled_and_show_the_figures(tmp_path):
    log(tmp_path, "1", [train(10, 1, 2.0), train(20, 2), val(2, 0.125)])
    figure = plot_curves.plot(*plot_curves.read_scalars(tmp_path), "run")
    left, right = figure.axes
    assert (left.get_xlabel(), left.get_ylabel()) == ("training step", "loss")
    assert (right.get_xlabel(), right.get_ylabel()) == ("epoch", "average precision")
    lines = {
        line.get_label().split(",")[0]: line.get_xydata().tolist()
        for line in left.lines + right.lines
    }
    assert set(lines) == {"total", "loss_cls", "loss_bbox", "AP", "AP50"}
    assert lines["total"] == [[10, 2.0], [20, 1.0]]
    assert lines["AP"] == [[2, 0.125]] and lines["AP50"] == [[2, 0.25]]
    legend = [text.get_text() for text in right.get_legend().get_texts()]
    assert legend == ["AP, last 0.125", "AP50, last 0.250"]
    figure.draw_without_rendering()
    low, high = right.get_xlim()
    ticks = [tick for tick in right.get_xticks() if low <= tick <= high]
    assert ticks == [2]  # one evaluation: no fractions of an epoch
    markers = [line.get_marker() for line in right.lines]
    assert len(set(markers)) == 2  # shapes as well as colours


@pytest.mark.parametrize("with_val", [True, False])
def test_command_writes_a_picture(tmp_path, capsys, with_val):
    log(tmp_path, "1", [train(10, 1), train(20, 2)] + [val(2, 0.5)] * with_val)
    out = tmp_path / "deep" / "curves.png"
    assert plot_curves.main([str(tmp_path), "--out", str(out)]) == 0
    assert cv2.imread(str(out)).std() > 10
    assert f"2 training and {int(with_val)} evaluation entries" in capsys.readouterr().out


def test_voc_metrics_are_named_too():
    names = plot_curves.metric_names([{"pascal_voc/mAP": 0.5, "pascal_voc/AP50": 0.8, "step": 1}])
    assert names == {"pascal_voc/mAP": "AP", "pascal_voc/AP50": "AP50"}


def test_equal_labels_say_whose_they_are():
    names = plot_curves.metric_names([{"a/bbox_mAP": 0.5, "b/bbox_mAP": 0.8, "b/bbox_mAP_50": 0.9}])
    assert names == {"a/bbox_mAP": "a: AP", "b/bbox_mAP": "b: AP", "b/bbox_mAP_50": "AP50"}


def test_losses_of_any_name_are_drawn(tmp_path):
    """Of semi-supervised training and of the stages of a cascade."""
    parts = {"sup_loss_cls": 0.5, "s0.loss_cls": 0.25, "s0.acc": 90.0}
    log(tmp_path, "1", [dict(loss=0.75, step=10, epoch=1, **parts)])
    left, _ = plot_curves.plot(*plot_curves.read_scalars(tmp_path), "run").axes
    assert {line.get_label() for line in left.lines} == {"total", "sup_loss_cls", "s0.loss_cls"}


def test_the_file_that_is_written_is_named(tmp_path, capsys):
    log(tmp_path, "1", [train(10, 1)])
    assert plot_curves.main([str(tmp_path), "--out", str(tmp_path / "sub" / "curves")]) == 0
    written = tmp_path / "sub" / "curves.png"
    assert capsys.readouterr().out.strip().endswith(f": {written}")
    assert cv2.imread(str(written)).std() > 10
    assert plot_curves.main([str(tmp_path), "--out", str(tmp_path / "c.PDF")]) == 0
    assert (tmp_path / "c.PDF").read_bytes().startswith(b"%PDF")


def test_pictures_of_other_kinds_are_refused(tmp_path, capsys):
    log(tmp_path, "1", [train(10, 1)])
    assert plot_curves.main([str(tmp_path), "--out", str(tmp_path / "c.xyz")]) == 1
    said = capsys.readouterr().err
    assert "c.xyz: .xyz is no kind of picture" in said and ".png" in said and said.count("\n") == 1
    (tmp_path / "folder.png").mkdir()
    assert plot_curves.main([str(tmp_path), "--out", str(tmp_path / "folder.png")]) == 1
    assert "folder.png is a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (None, "there is no folder"),
        ("", "has no */vis_data/scalars.json"),
        ([val(1, 0.5)], "has no training losses yet"),
    ],
)
def test_nothing_to_plot(tmp_path, capsys, entries, message):
    folder = tmp_path / "run"
    if entries is not None:
        folder.mkdir()
    if entries:
        log(folder, "1", entries)
    assert plot_curves.main([str(folder)]) == 1
    assert message in capsys.readouterr().err
