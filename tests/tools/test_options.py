"""Options of the tools: one name per meaning in all tools, and the old names, which warn."""

import argparse
import warnings
from collections import defaultdict

import pytest
from helpers.tool_parsers import SCRIPTS, parser_of

from misalign_det.utils.old_names import RenamedWarning

RENAMED = {
    "analysis/figures.py": {"--show-dir": "--out-dir"},
    "analysis/loss_maps.py": {"--show-dir": "--out-dir"},
    "analysis/receptive_field.py": {"--show-dir": "--out-dir"},
    "analysis/save_pictures.py": {"--num": "--num-images"},
    "benchmarks/assignment.py": {
        "--gts": "--num-objects",
        "--images": "--num-images",
        "--image": "--img-shape",
        "--classes": "--num-classes",
        "--anchors": "--num-anchors",
    },
    "benchmarks/mixture.py": {"--gts": "--num-objects", "--candidates": "--num-candidates"},
    "benchmarks/nms.py": {"--boxes": "--num-boxes", "--classes": "--num-classes"},
    "benchmarks/refinement.py": {"--images": "--num-images"},
    "benchmarks/step.py": {
        "--candidates": "--num-boxes",
        "--image": "--img-shape",
        "--batch": "--batch-size",
        "--objects": "--num-objects",
    },
    "benchmarks/variants.py": {
        "--image": "--img-shape",
        "--batch": "--batch-size",
        "--objects": "--num-objects",
    },
    "dataset_converters/shapes.py": {
        "--out": "--out-dir",
        "--train": "--num-train",
        "--val": "--num-val",
        "--size": "--img-scale",
    },
    "dataset_converters/split_coco.py": {"--num": "--num-images"},
}
# Where mmdet's users expect these names, and where the same word is right in another tool.
KEPT = {
    "--images": {"export.py"},
    "--show-dir": {"test.py"},
    "--image": {"analysis/figures.py", "analysis/loss_maps.py"},
    "--classes": {"predict.py", "analysis/compare_ap.py", "analysis/misalignment.py"},
}


def options(parser, hidden=False):
    """Actions with a name, by each of their names."""
    return {
        name: action
        for action in parser._actions
        if (action.help == argparse.SUPPRESS) == hidden
        for name in action.option_strings
    }


def words_for(action):
    """Words that an option takes."""
    if action.nargs == 0:
        return []
    word = str(next(iter(action.choices))) if action.choices else "7"
    return [word] * (action.nargs if isinstance(action.nargs, int) else 1)


def required(parser, without):
    """A command line with everything that a parser requires, except one option."""
    words = []
    for action in parser._actions:
        if action.option_strings:
            if action.required and without not in action.option_strings:
                words += [action.option_strings[0], *words_for(action)]
        elif action.nargs not in ("?", "*"):
            words += words_for(action) * (2 if action.nargs == "+" else 1)
    return words


@pytest.mark.parametrize("script", SCRIPTS)
def test_old_names_warn_and_set_the_new_option(script):
    parser = parser_of(script, RENAMED.get(script, ()))
    assert set(options(parser, hidden=True)) == set(RENAMED.get(script, ()))
    for old, new in RENAMED.get(script, {}).items():
        action = options(parser)[new]
        line = required(parser_of(script), without=new)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            expected = getattr(
                parser_of(script).parse_args([*line, new, *words_for(action)]), action.dest
            )
        with pytest.warns(RenamedWarning, match=f"{old} is now called {new}"):
            words = [*line, old, *words_for(action)]
            found = parser_of(script, words).parse_args(words)
        assert getattr(found, action.dest) == expected != action.default


def test_an_option_means_the_same_in_all_tools():
    kinds = defaultdict(set)
    for script in SCRIPTS:
        for name, action in options(parser_of(script)).items():
            kinds[name].add((action.dest, action.type, type(action)))
            old = any(name in names for names in RENAMED.values())
            if old and name != "--out":  # --out is a file to write, in all tools
                assert script in KEPT.get(name, ()), f"{script} uses {name}, which was renamed"
    assert {name: kind for name, kind in kinds.items() if len(kind) > 1} == {}
