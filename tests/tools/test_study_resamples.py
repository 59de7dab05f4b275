"""AP on resamples outlives the detections that it was computed from."""

import json
import pickle
import shutil

import compare
import numpy as np
import pytest
from compose import Run, config_text
from evaluate import figures
from jobs import make_jobs
from records import append, read

IMAGES = 6
BOXES = np.array([[20.0, 30, 60, 70], [100, 40, 160, 120]])


class Detected:
    """Methods of the study `main` with detections on a small data set, and their results."""

    def __init__(self, folder):
        self.out, self.results = folder / "out", folder / "results"
        self.lines, self.kept = self.results / "main.jsonl", self.results / "resamples.jsonl"

    def test(self, method, shift):
        """Detections whose boxes are off by some pixels, more of them in later images."""
        (job,) = make_jobs([Run(method, "shapes", 0, 8)], "val", self.out)
        run = job.training
        job.test_file(run, ".pkl").parent.mkdir(parents=True, exist_ok=True)
        (job.folder / "epoch_8.pth").touch()
        (job.folder / "trained.json").write_text(json.dumps(dict(checkpoint="epoch_8.pth")))
        job.test_file(run, ".py").write_text(config_text(run, "val"))
        job.test_file(run, ".json").write_text(json.dumps(dict(config=job.hashes[method])))
        found = [
            dict(
                img_id=image,
                pred_instances=dict(
                    bboxes=BOXES + shift * image, scores=np.array([0.9, 0.8]), labels=np.zeros(2)
                ),
            )
            for image in range(IMAGES)
        ]
        job.test_file(run, ".pkl").write_bytes(pickle.dumps(found))
        line = dict(kind="result", method=method, data="shapes", backbone="effnet-lite0", epochs=8)
        line |= dict(seed=0, split="val", config=job.hashes[method])
        line |= figures(job.test_file(run, ".py"), job.test_file(run, ".pkl"))
        append(self.lines, line)
        return line

    def annotations(self):
        return self.out.parent / "shapes/annotations/instances_val.json"

    def compare(self, *options):
        folders = ["--out-dir", str(self.out), "--results-dir", str(self.results)]
        compare.main(["main", "--resamples", "20", *options, *folders])
        return [line for line in read(self.lines) if line["kind"] == "comparison"]


@pytest.fixture
def tested(tmp_path, monkeypatch):
    monkeypatch.setenv("MISALIGN_DET_SHAPES", str(tmp_path / "shapes"))
    names = ("disc", "rectangle", "triangle", "ring", "cross", "star")
    size = BOXES[:, 2:] - BOXES[:, :2]
    coco = dict(
        images=[dict(id=i, file_name=f"{i}.png", width=320, height=240) for i in range(IMAGES)],
        categories=[dict(id=i, name=name) for i, name in enumerate(names, 1)],
        annotations=[
            dict(
                id=1 + 2 * image + index,
                image_id=image,
                category_id=1,
                bbox=[*BOXES[index, :2], *size[index]],
                area=float(size[index].prod()),
                iscrowd=0,
            )
            for image in range(IMAGES)
            for index in range(2)
        ],
    )
    folder = tmp_path / "shapes/annotations"
    folder.mkdir(parents=True)
    for split in ("train", "val"):
        (folder / f"instances_{split}.json").write_text(json.dumps(coco))
    return Detected(tmp_path)


def test_the_interval_is_the_same_without_the_detections(tested):
    fcos, atss = tested.test("fcos", 3), tested.test("atss", 1)
    (first,) = tested.compare()
    assert first["gain"] == pytest.approx(atss["AP"] - fcos["AP"], abs=2e-5)
    assert first["low"] < first["gain"] < first["high"]
    kept = read(tested.kept)
    assert [line["AP"] for line in kept] == [fcos["AP"], atss["AP"]]
    assert all(len(set(line["draws"])) > 5 and len(line["draws"]) == 20 for line in kept)
    shutil.rmtree(tested.out)
    text = tested.kept.read_text()
    assert tested.compare() == [first]
    # A new method is compared with those that have no detections any more.
    tested.test("paa", 2)
    assert len(tested.compare()) == 2 and tested.kept.read_text().startswith(text)


def test_lines_of_the_same_images_in_another_order_are_not_paired(tested):
    """The draws are of places in the annotation file."""
    tested.test("fcos", 3), tested.test("atss", 1)
    tested.compare()
    text, lines = tested.kept.read_text(), tested.lines.read_text()
    annotations = tested.annotations()
    coco = json.loads(annotations.read_text())
    annotations.write_text(json.dumps(dict(coco, images=coco["images"][::-1])))
    tested.test("paa", 2)
    with pytest.raises(SystemExit, match="paa 8e seed 0 is not of the same images"):
        tested.compare()
    assert tested.kept.read_text() == text
    tested.kept.write_text(text.replace(read(tested.kept)[1]["images"], "0" * 8, 1))
    tested.lines.write_text(lines)
    with pytest.raises(SystemExit, match="atss 8e seed 0 is not of the same images"):
        tested.compare()


def test_another_number_of_resamples_needs_the_detections(tested):
    tested.test("fcos", 3), tested.test("atss", 1)
    tested.compare()
    (more,) = tested.compare("--resamples", "30")
    assert more["resamples"] == 30
    shutil.rmtree(tested.out)
    (one,) = tested.compare("--resamples", "20")
    assert one["resamples"] == 20
    with pytest.raises(SystemExit, match="nothing was compared"):
        tested.compare("--resamples", "25")


def test_detections_of_another_training_are_left_out(tested, capsys):
    result = tested.test("fcos", 3)
    tested.test("atss", 1)
    append(tested.lines, dict(result, AP=result["AP"] + 0.01))
    with pytest.raises(SystemExit, match="those of shapes fcos 8e seed 0 on val"):
        tested.compare()
    assert [line["method"] for line in read(tested.kept)] == ["atss"]


def test_a_training_without_an_ap_on_a_resample(tested, monkeypatch):
    import resamples

    from misalign_det.evaluation.paired_bootstrap import ResampledAP

    for method in ("fcos", "atss"):
        tested.test(method, 1)

    def drawn(coco, trainings, classes, resamples, seed):
        found = real(coco, trainings, classes, resamples, seed)
        draws = found.draws.copy()
        draws[0, 3] = np.nan
        return ResampledAP(found.whole, draws)

    real = resamples.resampled_ap
    monkeypatch.setattr(resamples, "resampled_ap", drawn)
    (line,) = tested.compare()
    assert line["low"] == line["high"] == 0
    assert [line["draws"][3] for line in read(tested.kept)] == [None, None]
