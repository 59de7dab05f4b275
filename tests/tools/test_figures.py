"""figures.py: the papers' figures from small untrained detectors."""

import cv2
import pytest
from helpers.tiny_detectors import image_with_objects, make_detector, tool


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    tool("dataset_converters", "shapes").make_set(folder, train=1, val=4, size=(160, 128), seed=3)
    return folder


@pytest.fixture
def draw(tmp_path, data, capsys):
    """Run the tool; give the pictures that it names."""

    def draw(figure, *detectors, options=()):
        arguments = [figure, *detectors, "--device", "cpu", "--out-dir", str(tmp_path / "out")]
        module = tool("analysis", "figures")
        options = [*options, "--image", image_with_objects(data)[0]]
        module.main([*arguments, *options, "--cfg-options", f"data_root={data}"])
        lines = capsys.readouterr().out.splitlines()
        pictures = [cv2.imread(line) for line in lines if line.endswith(".png")]
        assert pictures and all(picture.std() > 3 for picture in pictures)
        return pictures

    return draw


@pytest.mark.slow
def test_assignments_of_several_checkpoints(tmp_path, draw):
    config, checkpoint = make_detector(tmp_path, "TripleHead")
    (one,) = draw("assignments", config, checkpoint)
    (two,) = draw("assignments", config, checkpoint, checkpoint)
    legend = 24  # one line below all rows
    assert two.shape[0] - legend == 2 * (one.shape[0] - legend) and two.shape[1] == one.shape[1]


@pytest.mark.slow
def test_sample_quality_and_detections_of_several_detectors(tmp_path, draw):
    pairs = [part for head in ("TripleHead", "ATSSHead", "GFLHead", "FCOSHead")
             for part in make_detector(tmp_path, head, spread=0.3)]  # fmt: skip
    assert len(draw("sample-quality", *pairs, options=["--num-images", "2"])) == 1
    (grid,) = draw("detections", *pairs, options=["--score-thr", "0.05"])
    (less,) = draw("detections", *pairs[:2])
    legend = 48  # two lines below all rows
    # The ground truth and one row a detector.
    assert (grid.shape[0] - legend) * 2 == (less.shape[0] - legend) * 5


@pytest.mark.slow
def test_sensitivity_and_sampling_points(tmp_path, draw):
    for head in ("RFAHead", "TripleHead", "RetinaHead"):
        pair = make_detector(tmp_path, head)
        draw("sensitivity", *pair)
        if head != "RetinaHead":
            draw("sampling-points", *pair)


@pytest.mark.parametrize("count, most", [(4, 3), (5, 5), (7, 4), (100, 51), (3, 50), (0, 5)])
def test_no_more_images_than_asked_for(count, most):
    chosen = tool("analysis", "figures").spread(count, most)
    assert len(chosen) == len(set(chosen)) == min(count, most)
    assert all(0 <= index < count for index in chosen)
    steps = {after - before for before, after in zip(chosen, chosen[1:])}
    assert not steps or max(steps) - min(steps) <= 1


def test_no_images_are_refused(capsys):
    with pytest.raises(SystemExit):
        tool("analysis", "figures").main(["sample-quality", "c.py", "c.pth", "--num-images", "0"])
    assert "--num-images must be at least 1" in capsys.readouterr().err


def test_all_checkpoints_are_loaded_before_the_first_is_used(tmp_path, data, capsys):
    pair = make_detector(tmp_path, "FCOSHead")
    unlike = make_detector(tmp_path, "GFLHead")[1]
    with pytest.raises(SystemExit, match=unlike):
        tool("analysis", "figures").main(
            ["sample-quality", *pair, pair[0], unlike, "--device", "cpu", "--out-dir",
             str(tmp_path / "out"), "--cfg-options", f"data_root={data}"])  # fmt: skip
    assert "==>" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "figure, head, extra, message",
    [
        ("sampling-points", "FCOSHead", ["--image", "WITH_OBJECTS"], "no deformable layer"),
        ("sensitivity", "FCOSHead", ["--gt", "99"], "--gt 99"),
        ("sensitivity", "FCOSHead", ["--image", "none.jpg"], "no image 'none.jpg'"),
    ],
)
def test_what_cannot_be_drawn_is_said(tmp_path, data, capsys, figure, head, extra, message):
    extra = [image_with_objects(data)[0] if part == "WITH_OBJECTS" else part for part in extra]
    arguments = [figure, *make_detector(tmp_path, head), "--device", "cpu", *extra]
    arguments += ["--out-dir", str(tmp_path), "--cfg-options", f"data_root={data}"]
    with pytest.raises(SystemExit) as stop:
        tool("analysis", "figures").main(arguments)
    assert message in capsys.readouterr().err + str(stop.value)
