"""Tables, plots and comparisons of tools/study, from lines that are made here."""

import dataclasses

import numpy as np
import pytest
from compare import comparisons
from grid import STUDIES
from plots import digest_of, gains, plot, plot_digest
from records import REPEATS, append
from render import PAGES, main
from tables import Column, Results, cost_rows, references, render

from misalign_det.errors import InputError
from misalign_det.evaluation.paired_bootstrap import ResampledAP

METHODS = ("fcos", "atss", "jla_triplehead", "iac-dc-clnms_retinanet")
STUDY = dataclasses.replace(STUDIES["main"], methods=METHODS, seeds=(0, 1))
TABLE = """\
| AP, val | bccd | hit-uav | mean | mean rank |
| --- | --- | --- | --- | --- |
| `fcos` | 41.0 ± 1.4 | **21.0** ± 1.4 | 31.0 | 1.5 |
| `atss` | **51.0** ± 1.4 | 17.0 (n = 1) | 34.0 | 1.5 |
| `jla_triplehead` | 45.0 ± 0.0 | – | – | – |"""
COST = """\
| cost | parameters, millions | training time over `fcos`'s | inference time over `fcos`'s |
| --- | --- | --- | --- |
| `fcos` | 3.33 | – | – |
| `atss` | 3.33 | 1.50 | 1.30 |
| `jla_triplehead` | 3.33 | – | – |"""


def line(method, data, seed, ap, **kwargs):
    epochs = {"bccd": 12, "hit-uav": 6}[data]
    return dict(
        kind="result", method=method, data=data, seed=seed, AP=ap, backbone="effnet-lite0",
        epochs=epochs, split="val", parameters=3_327_000, config=f"{method}{data}{seed}",
        **kwargs)  # fmt: skip


LINES = [
    line("fcos", "bccd", 0, 0.40), line("fcos", "bccd", 1, 0.42),
    line("fcos", "hit-uav", 0, 0.20), line("fcos", "hit-uav", 1, 0.22),
    line("atss", "bccd", 0, 0.50), line("atss", "bccd", 1, 0.52),
    line("atss", "hit-uav", 0, 0.17),
    line("jla_triplehead", "bccd", 0, 0.45),
    line("jla_triplehead", "bccd", 1, 0.45),
]  # fmt: skip


def resampled(results, spread=0.01, resamples=200):
    """AP on resamples as of independent images, per method and column."""
    rng = np.random.default_rng(0)
    return {
        cell: ResampledAP(
            np.array(results.values(*cell)),
            np.array(results.values(*cell))[:, None]
            + rng.normal(0, spread, (len(runs), resamples)),
        )
        for cell, runs in results.runs.items()
    }


def compared(lines, study=STUDY):
    results = Results(lines, study, "val")
    return [*lines, *comparisons(results, resampled(results))]


def test_tables_are_the_golden_ones():
    costs = [
        dict(LINES[i], kind="cost", inference_ratio=ratio, training_ratio=ratio + 0.2)
        for i, ratio in ((4, 1.2), (6, 1.4))
    ]
    # Of a config of which there is no result any more.
    costs.append(dict(LINES[7], kind="cost", inference_ratio=9, training_ratio=9, config="old"))
    text = render(Results([*LINES, *costs], STUDY, "val"))
    assert text == f"{TABLE}\n\n{COST}"
    # Without a measured time there are no columns of times.
    rows = render(Results(LINES, STUDY, "val")).splitlines()[-5:]
    assert rows[0] == "| cost | parameters, millions |"
    assert rows[-1] == "| `jla_triplehead` | 3.33 |"


def test_a_method_without_a_training_of_its_own_is_compared_with_the_trained_one():
    study = dataclasses.replace(STUDY, methods=("fcos", "atss", "gfl", "gfl-clnms", "gfl-voting"))
    lines = [line(m, "bccd", 0, 0.4) for m in study.methods]
    results = Results(lines, study, "val")
    found = references(results, results.columns)
    assert found == [
        ("atss", "fcos"), ("gfl", "fcos"), ("gfl-clnms", "gfl"), ("gfl-voting", "gfl")]  # fmt: skip
    # It costs no more parameters; its inference may take longer, which is shown if it was measured.
    cost = dict(lines[-1], kind="cost", inference_ratio=1.1, training_ratio=1.0)
    for more, names in (([], []), ([cost], ["gfl-voting"])):
        rows = list(cost_rows(Results([*lines, *more], study, "val")))
        assert [row[0] for row in rows] == [
            "cost", "`fcos`", "`atss`", "`gfl`", *(f"`{name}`" for name in names)]  # fmt: skip
    compared_lines = compared(lines, study)
    assert [name for name, _ in gains(Results(compared_lines, study, "val"))] == ["atss", "gfl"]
    # Without the trained one's results it is compared as any other.
    without = Results([one for one in lines if one["method"] != "gfl"], study, "val")
    assert ("gfl-clnms", "fcos") in references(without, without.columns)


def test_equal_methods_share_their_rank():
    equal = [line(m, d, 0, 0.3) for m in METHODS[:3] for d in ("bccd", "hit-uav")]
    equal[-1]["AP"] = 0.2
    rows = render(Results(equal, STUDY, "val")).splitlines()[2:5]
    assert [row.split("|")[-2].strip() for row in rows] == ["1.8", "1.8", "2.5"]


def test_nothing_and_other_splits():
    assert render(Results([], STUDY, "val")) == "No results yet."
    assert render(Results(LINES, STUDY, "test")) == "No results yet."
    assert render(Results(LINES, STUDY, "val", "r18")) == "No results yet."


def test_gains_are_shown_with_their_intervals():
    lines = compared(LINES)
    made = {(c["method"], c["reference"], c["data"]): c for c in lines[len(LINES) :]}
    # Over FCOS and, for this package's, over the best peer; the mean needs all data sets.
    assert set(made) == {
        ("atss", "fcos", "bccd"), ("atss", "fcos", "hit-uav"), ("atss", "fcos", "all"),
        ("jla_triplehead", "fcos", "bccd"), ("jla_triplehead", "atss", "bccd")}  # fmt: skip
    found = made["atss", "fcos", "all"]
    assert found["gain"] == pytest.approx(0.03) and found["low"] < 0.03 < found["high"]
    text = render(Results(lines, STUDY, "val"), "picture.svg")
    (row,) = (r for r in text.splitlines() if r.startswith("| `jla_triplehead` | `atss`"))
    cell = made["jla_triplehead", "atss", "bccd"]
    low, high = 100 * cell["low"], 100 * cell["high"]
    assert row == f"| `jla_triplehead` | `atss` | -6.0 ({low:+.1f} to {high:+.1f}) | – | – |"
    assert "](picture.svg)" in text
    # Of other results than today's, they are not shown.
    changed = [dict(one, AP=0.41) if one is LINES[0] else one for one in lines]
    assert "`jla_triplehead` | `fcos`" not in render(Results(changed, STUDY, "val"))


def test_the_interval_covers_the_spread_of_seeds():
    """Images alone say nothing of it: two methods, three seeds, images that do not matter."""
    means = {"fcos": [0.40, 0.40, 0.40], "atss": [0.41, 0.45, 0.49]}
    lines = [line(m, "bccd", s, ap) for m, aps in means.items() for s, ap in enumerate(aps)]
    results = Results(lines, STUDY, "val")
    (found,) = comparisons(results, resampled(results, spread=0, resamples=2000))
    assert found["gain"] == pytest.approx(0.05)
    assert found["low"] == pytest.approx(0.01) and found["high"] == pytest.approx(0.09)
    many = np.random.default_rng(1).normal(0, 0.02, (400, 3)) + 0.05
    inside = 0
    for aps in many:
        drawn = ResampledAP(aps, np.repeat(aps[:, None], 200, axis=1)).with_seeds(3)
        inside += np.quantile(drawn, 0.025) <= 0.05 <= np.quantile(drawn, 0.975)
    assert inside > 280  # three seeds give a narrow interval: seven of ten, not all


def test_methods_of_the_same_trainings_have_the_same_seeds_in_a_resample():
    """The gain of a setting of testing does not vary with the seeds of training."""
    aps = [0.40, 0.45, 0.50]
    study = dataclasses.replace(STUDY, methods=("gfl", "gfl-clnms"), seeds=(0, 1, 2))
    lines = [line(m, "bccd", s, ap) for m in study.methods for s, ap in enumerate(aps)]
    results = Results(lines, study, "val")
    (found,) = comparisons(results, resampled(results, spread=0))
    assert found["gain"] == found["low"] == found["high"] == 0


def test_lengths_have_columns_of_their_own():
    lines = [*LINES, dict(line("fcos", "bccd", 0, 0.5), epochs=36)]
    results = Results(lines, STUDY, "val")
    assert results.columns == [Column("bccd", 12), Column("bccd", 36), Column("hit-uav", 6)]
    assert results.lengths == [1, 3]
    assert "| bccd, 12 epochs | bccd, 36 epochs | hit-uav, 6 epochs |" in render(results)


def test_the_plot_says_what_it_shows(tmp_path):
    results = Results(compared(LINES), STUDY, "val")
    path = tmp_path / "a.svg"
    plot(results, path)
    text = path.read_text()
    assert "gain over fcos, AP on val" in text and "jla_triplehead" in text and "atss" in text
    plot(results, tmp_path / "b.svg")
    assert (tmp_path / "b.svg").read_text() == text
    assert [method for method, _ in gains(results)] == list(METHODS[1:3])
    changed = [
        dict(one, high=one["high"] + 0.01) if "high" in one else one for one in compared(LINES)
    ]
    other = Results(changed, STUDY, "val")
    assert digest_of(path) == plot_digest(results) != plot_digest(other)


OTHERS = (dict(backbone="r18"), dict(epochs=36))


def page_of(folder, block="study: main, val"):
    page = folder / "configs/studies.md"
    page.parent.mkdir()
    page.write_text(f"before\n<!-- {block} -->\nold\n<!-- end -->\nafter\n")
    return page


def test_trainings_made_again_on_another_device(tmp_path):
    page = page_of(tmp_path, "repeats: main, val")
    options = ["--pages", str(page), "--results-dir", str(tmp_path)]
    main(options)
    assert "No results yet." in page.read_text()
    append(tmp_path / "main.jsonl", *(dict(one, device="GPU") for one in LINES))
    other = [line("atss", "bccd", 1, ap, device=name) for ap, name in ((0.5, "CPU"), (0.6, "TPU"))]
    append(tmp_path / REPEATS, *other, line("fcos", "bccd", 0, 0.41, device="CPU"))
    # Of another backbone or length they are other trainings.
    others = [dict(one, AP=0.99) | change for one in other for change in OTHERS]
    append(tmp_path / "main.jsonl", *(dict(one, device="GPU") for one in others))
    main(options)
    assert page.read_text() == (
        "before\n<!-- repeats: main, val -->\n\n"
        "| AP, val | seed | CPU | GPU | TPU |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| `atss`, bccd | 1 | 50.0 | 52.0 | 60.0 |\n"
        "| `fcos`, bccd | 0 | 41.0 | 40.0 | – |\n"
        "\n<!-- end -->\nafter\n"
    )


def test_pages_are_written_and_checked(tmp_path, capsys):
    page = page_of(tmp_path)
    lines, options = tmp_path / "main.jsonl", ["--pages", str(page), "--results-dir", str(tmp_path)]
    with pytest.raises(SystemExit, match="studies.md: not what the results give"):
        main([*options, "--check"])
    assert "old" in page.read_text()
    main(options)
    assert page.read_text() == (
        "before\n<!-- study: main, val -->\n\nNo results yet.\n\n<!-- end -->\nafter\n"
    )
    append(lines, *compared(LINES, STUDIES["main"]))
    with pytest.raises(SystemExit, match="studies.md, study_main_val_effnet-lite0.svg: not what"):
        main([*options, "--check"])
    main(options)
    picture = tmp_path / ".github/study_main_val_effnet-lite0.svg"
    assert "(../.github/study_main_val_effnet-lite0.svg)" in page.read_text()
    assert picture.is_file()
    main([*options, "--check"])
    picture.unlink()
    with pytest.raises(SystemExit, match="^study_main_val_effnet-lite0.svg: not what"):
        main([*options, "--check"])


def test_the_table_of_ap_alone(tmp_path):
    page = page_of(tmp_path, "AP: main, val")
    append(tmp_path / "main.jsonl", *compared(LINES, STUDIES["main"]))
    main(["--pages", str(page), "--results-dir", str(tmp_path)])
    text = page.read_text()
    assert text.count("\n| --- |") == 1 and "| AP, val | bccd |" in text
    assert "95 % interval" not in text and ".svg" not in text


def test_the_table_of_the_classes_of_a_data_set(tmp_path):
    page = page_of(tmp_path, "classes: main, val, bccd")
    options = ["--pages", str(page), "--results-dir", str(tmp_path)]
    main(options)
    assert "No results yet." in page.read_text()
    found = [(0.4, 0.1), (0.5, 0.3), (0.5, 0.35)]
    rows = [
        dict(one, per_class=dict(RBC=rbc, WBC=wbc, Platelets=None))
        for one, (rbc, wbc) in zip((LINES[0], LINES[1], LINES[4]), found)
    ]
    longer = dict(rows[0], epochs=36, per_class=dict(RBC=1, WBC=1, Platelets=None))
    append(tmp_path / "main.jsonl", *rows, longer, dict(LINES[2], per_class=dict(Car=1)))
    main(options)
    assert page.read_text() == (
        "before\n<!-- classes: main, val, bccd -->\n\n"
        "| AP by class, bccd, val | RBC | WBC |\n"
        "| --- | --- | --- |\n"
        "| `fcos` | 45.0 ± 7.1 (n = 2) | 20.0 ± 14.1 (n = 2) |\n"
        "| `atss` | **50.0** (n = 1) | **35.0** (n = 1) |\n"
        "\n<!-- end -->\nafter\n"
    )


@pytest.mark.parametrize(
    "block",
    ["study: unknown, val", "AP: main, train", "study: main, val, r99", "classes: main, val, coco"],
)
def test_wrong_blocks_are_named(tmp_path, block):
    with pytest.raises(SystemExit, match=f"{block} -->: studies are main"):
        main(["--pages", str(page_of(tmp_path, block))])


def test_a_block_without_an_end_is_named(tmp_path):
    page = page_of(tmp_path)
    page.write_text(page.read_text().replace("<!-- end -->", ""))
    with pytest.raises(SystemExit, match="ends with <!-- end -->"):
        main(["--pages", str(page)])


def test_nothing_to_render_is_an_error(tmp_path):
    """And no page loses its tables to a folder that is not there."""
    page = page_of(tmp_path)
    before = page.read_text()
    with pytest.raises(SystemExit, match="there is no folder .*nowhere: --results-dir"):
        main(["--pages", str(page), "--results-dir", str(tmp_path / "nowhere")])
    assert page.read_text() == before
    page.write_text("without a block")
    with pytest.raises(SystemExit, match="studies.md: there is no block of a study"):
        main(["--pages", str(page), "--results-dir", str(tmp_path)])


def test_the_pages_of_configs_are_what_the_results_give():
    blocks = ["AP: main, test", "study: main, test", "study: peers, test", "study: papers, test"]
    blocks.append("study: assigner, val")
    for block, page in zip(blocks, PAGES, strict=True):
        assert f"<!-- {block} -->" in page.read_text()
    main(["--check"])


def test_figures_per_size_and_class():
    """Through coco_figures: a small object found, a large one of the other class not."""
    from misalign_det.evaluation.coco_ap import index_annotations
    from misalign_det.evaluation.paired_bootstrap import coco_figures

    boxes = [[0, 0, 20, 20], [30, 30, 120, 120]]
    coco = index_annotations(dict(
        images=[dict(id=1)], categories=[dict(id=1, name="a"), dict(id=2, name="b")],
        annotations=[dict(id=i, image_id=1, category_id=i, bbox=box, area=box[2] * box[3],
                          iscrowd=0) for i, box in enumerate(boxes, 1)]))  # fmt: skip
    part = dict(bboxes=np.array([[0, 0, 20, 20.0]]), scores=np.ones(1), labels=np.zeros(1))
    found = coco_figures(coco, [dict(img_id=1, pred_instances=part)], ("a", "b"), detailed=True)
    assert found.pop("per_class") == pytest.approx(dict(a=1, b=0))
    assert np.isnan(found.pop("APm"))
    assert found == pytest.approx(dict(AP=0.5, AP50=0.5, AP75=0.5, APs=1, APl=0))
    with pytest.raises(InputError, match="no category 'c'"):
        coco_figures(coco, [], ("c",), detailed=True)
