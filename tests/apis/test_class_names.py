"""Which class a label stands for: said by the detector, or by a file that cannot be wrong."""

import argparse
import os

import numpy as np
import pytest
import torch

from misalign_det.apis.class_names import (
    add_class_arguments,
    chosen_classes,
    classes_of_checkpoint,
    classes_of_config,
    classes_of_file,
)
from misalign_det.errors import CheckpointError, InputError
from misalign_det.evaluation.coco_ap import index_annotations

CONFIG = """
meta = dict(classes={classes})
leaf = dict(type='{kind}', metainfo=meta, ann_file='a.json')
test_dataloader = dict(dataset=dict(type='ConcatDataset', datasets=[leaf, leaf]))
"""


def coco_of(*names, used=None):
    used = range(len(names)) if used is None else used
    return index_annotations(dict(
        images=[dict(id="x")],
        categories=[dict(id=f"c{i}", name=name) for i, name in enumerate(names)],
        annotations=[dict(id=i, image_id="x", category_id=f"c{i}", bbox=[0, 0, 9, 9])
                     for i in used]))  # fmt: skip


def labelled(*labels):
    return [dict(img_id="x", pred_instances=dict(labels=np.array(labels, int))),
            dict(img_id="x", pred_instances=dict(labels=np.zeros(0, int)))]  # fmt: skip


def arguments(*words):
    parser = argparse.ArgumentParser()
    add_class_arguments(parser)
    args = parser.parse_args(words)
    args.trust_checkpoint = False
    return args


def config(path, classes="('a', 'b')", kind="CocoDataset"):
    path.write_text(CONFIG.format(classes=classes, kind=kind))
    return str(path)


def checkpoint(path, meta):
    torch.save(dict(state_dict={}, meta=meta), path)
    return str(path)


def test_of_a_file_that_cannot_be_wrong():
    coco = coco_of("a", "b", "c")
    assert classes_of_file(coco, [labelled(0, 2)]) == ("a", "b", "c")
    # Of several detectors it is enough that one reaches the last class.
    assert classes_of_file(coco, [labelled(), labelled(2)]) == ("a", "b", "c")


@pytest.mark.parametrize(
    "used, labels, message",
    [
        ((1, 2), (0, 2), "'a' has no object"),  # Roboflow's supercategory
        ((0, 1, 2), (0, 1), "3 categories, and the highest label is 1"),
        ((0, 1, 2), (3,), "3 categories, and the highest label is 3"),
        ((0, 1, 2), (), "the highest label is -1"),
    ],
)
def test_of_a_file_that_may_be_wrong(used, labels, message):
    with pytest.raises(InputError, match=f"{message}.*--classes NAME"):
        classes_of_file(coco_of("a", "b", "c", used=used), [labelled(*labels)])


def test_of_configs(tmp_path):
    path = config(tmp_path / "c.py")
    assert classes_of_config(path) == ("a", "b")
    assert classes_of_config(config(tmp_path / "one.py", "'disc'")) == ("disc",)
    # The classes that the type itself knows.
    voc = tmp_path / "voc.py"
    voc.write_text("val_dataloader = dict(dataset=dict(type='mmdet.VOCDataset', ann_file='a'))")
    assert len(classes_of_config(str(voc))) == 20
    with pytest.raises(InputError, match="names no classes"):
        none = tmp_path / "none.py"
        none.write_text("model = dict()")
        classes_of_config(str(none))
    two = tmp_path / "two.py"
    two.write_text(
        "test_dataloader = dict(dataset=dict(datasets=["
        "dict(type='CocoDataset', metainfo=dict(classes=('a',))),"
        "dict(type='CocoDataset', metainfo=dict(classes=('b',)))]))"
    )
    with pytest.raises(InputError, match="differ in their classes"):
        classes_of_config(str(two))


def test_of_checkpoints(tmp_path):
    path = tmp_path / "m.pth"
    for meta in (dict(dataset_meta=dict(classes=("a", "b"))), dict(CLASSES=["a", "b"]),
                 dict(dataset_meta=dict(CLASSES=("a", "b")))):  # fmt: skip
        assert classes_of_checkpoint(checkpoint(path, meta)) == ("a", "b")
    assert classes_of_checkpoint(checkpoint(path, dict(dataset_meta=dict(classes="disc")))) == (
        "disc",
    )
    with pytest.raises(InputError, match="names no classes"):
        classes_of_checkpoint(checkpoint(path, dict(epoch=1)))
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        classes_of_checkpoint(str(tmp_path / "none.pth"))
    path.write_bytes(b"cut short")
    with pytest.raises(CheckpointError):
        classes_of_checkpoint(str(path))


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_runs_code_is_refused_unless_trusted(tmp_path):
    meta = dict(dataset_meta=dict(classes=("a",)), extra=RunsCode(tmp_path / "ran"))
    path = checkpoint(tmp_path / "m.pth", meta)
    with pytest.raises(CheckpointError, match="trust-checkpoint"):
        classes_of_checkpoint(path)
    assert not (tmp_path / "ran").exists()
    assert classes_of_checkpoint(path, trust=True) == ("a",)
    assert (tmp_path / "ran").exists()


def test_the_command_line_decides(tmp_path):
    coco, found = coco_of("a", "b"), [labelled(0)]
    one, same = config(tmp_path / "1.py"), config(tmp_path / "2.py")
    assert chosen_classes(arguments("--classes", "b", "a"), coco, found) == ("b", "a")
    assert chosen_classes(arguments("--config", one, same), coco, found) == ("a", "b")
    saved = checkpoint(tmp_path / "m.pth", dict(dataset_meta=dict(classes=("a", "b"))))
    assert chosen_classes(arguments("--checkpoint", saved), coco, found) == ("a", "b")
    with pytest.raises(InputError, match="Give --classes"):
        chosen_classes(arguments(), coco, found)
    assert chosen_classes(arguments(), coco, [labelled(1)]) == ("a", "b")
    other = config(tmp_path / "3.py", "('a', 'c')")
    with pytest.raises(InputError, match="has the classes a, b, but .*3.py a, c"):
        chosen_classes(arguments("--config", one, other), coco, found)
    turned = config(tmp_path / "4.py", "('b', 'a')")
    with pytest.raises(InputError, match="order of the file that was trained on"):
        chosen_classes(arguments("--config", turned), coco, found)
    with pytest.raises(SystemExit):
        arguments("--classes", "a", "--config", one)
