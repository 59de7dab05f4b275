"""Old names of arguments and classes: they work, with one warning, and hide nothing."""

import copy
import inspect
import pickle
import subprocess
import sys
import warnings

import pytest
import torch
from mmengine.registry import Registry
from torch import nn

from misalign_det.utils import argument_names, is_type, old_names
from misalign_det.utils.old_names import RenamedWarning, register_old_name, renamed_arguments

TOYS = Registry("toy", scope="toys")


@pytest.fixture(autouse=True)
def nothing_warned():
    old_names._warn.cache_clear()


@TOYS.register_module()
@renamed_arguments(colour="color", centre="center")
class Pen:
    """A pen."""

    def __init__(self, color: str = "blue", *, center: float = 0.0) -> None:
        self.color, self.center = color, center


@renamed_arguments(thickness="width")
class Brush(Pen):
    def __init__(self, width=1, **kwargs):
        super().__init__(**kwargs)
        self.width = width


class Pencil(Pen):
    def __init__(self, color="grey", **kwargs):
        super().__init__(color=color, **kwargs)


@TOYS.register_module()
class Layer(nn.Linear):
    """A layer."""

    def __init__(self, channels: int, bias: bool = True) -> None:
        super().__init__(channels, channels, bias)


register_old_name(TOYS, "OldPen", Pen)
register_old_name(TOYS, "OldLayer", Layer)


class TestArguments:
    def test_an_old_argument_works_and_warns_with_the_new_name(self):
        with pytest.warns(RenamedWarning, match="Pen: the argument colour is now called color"):
            assert Pen(colour="red").color == "red"
        with pytest.warns(RenamedWarning, match="centre is now called center"):
            assert Pen("red", centre=2.0).center == 2.0

    def test_new_arguments_do_not_warn(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert vars(Pen("red", center=1.0)) == vars(Pen(color="red", center=1.0))

    def test_the_old_one_counts_where_both_are_given(self):
        """A config of a user's overrides a key of its ``_base_``, which has the new name."""
        with pytest.warns(RenamedWarning):
            assert Pen(color="blue", colour="red").color == "red"

    def test_an_unknown_argument_is_an_error_as_before(self):
        with pytest.raises(TypeError, match="tint"):
            Pen(tint="red")
        with pytest.raises(TypeError, match="multiple values"), pytest.warns(RenamedWarning):
            Pen("blue", colour="red")

    def test_derived_classes_take_the_old_names_of_both(self):
        with pytest.warns(RenamedWarning, match="Brush: the argument thickness"):
            assert Brush(thickness=3).width == 3
        with pytest.warns(RenamedWarning, match="Brush: the argument colour"):
            assert Brush(colour="red").color == "red"
        with pytest.warns(RenamedWarning, match="Pencil: the argument colour"):
            assert Pencil(colour="red").color == "red"
        assert Brush.renamed_arguments == dict(colour="color", centre="center", thickness="width")
        assert Pen.renamed_arguments == dict(colour="color", centre="center")

    def test_the_signature_and_the_docstring_are_kept(self):
        assert list(inspect.signature(Pen).parameters) == ["color", "center"]
        assert Pen.__doc__ == "A pen." and Pen.__init__.__annotations__["color"] is str

    def test_argument_names_has_old_and_new_ones(self):
        assert argument_names(Pen) == (("color", "center", "colour", "centre"), True)
        names = ("width", "color", "center", "colour", "centre", "thickness")
        assert argument_names(Brush) == (names, True)


class TestRegisteredNames:
    def test_the_old_name_builds_the_class(self):
        with pytest.warns(RenamedWarning, match="OldPen is now called Pen"):
            pen = TOYS.build(dict(type="OldPen", color="red"))
        assert type(pen) is Pen and pen.color == "red"

    def test_arguments_of_both_ages(self):
        with pytest.warns(RenamedWarning) as seen:
            assert TOYS.build(dict(type="OldPen", colour="red")).color == "red"
        assert [str(w.message).split()[-1] for w in seen] == ["Pen.", "color."]

    def test_it_counts_as_the_class(self):
        assert is_type("OldPen", Pen, TOYS) and not is_type("OldPen", Layer, TOYS)
        assert argument_names(TOYS.get("OldPen")) == argument_names(Pen)

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
    def test_copies(self, copied):
        with pytest.warns(RenamedWarning):
            layer = TOYS.build(dict(type="OldLayer", channels=2))
        found = copied(layer)
        assert type(found) is Layer and torch.equal(found.weight, layer.weight)

    def test_a_class_derived_from_it_stays_itself(self):
        class Derived(TOYS.get("OldPen")):
            pass

        with pytest.warns(RenamedWarning):
            assert type(Derived("red")) is Derived

    def test_they_are_listed(self):
        found = [(old.registry, old.name, old.cls) for old in old_names.OLD_NAMES]
        assert (TOYS, "OldPen", Pen) in found and (TOYS, "OldLayer", Layer) in found


def test_one_warning_per_process_and_name():
    code = (
        "from misalign_det.utils.old_names import renamed_arguments\n"
        "@renamed_arguments(old='new', older='newer')\n"
        "class Toy:\n"
        "    def __init__(self, new=0, newer=0): pass\n"
        "Toy(old=1)\n"
        "Toy(old=2)\n"  # on a line of its own: Python itself warns once per line
        "Toy(older=1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if "RenamedWarning" in line]
    assert [line.split("RenamedWarning: ")[1] for line in lines] == [
        "Toy: the argument old is now called new.",
        "Toy: the argument older is now called newer.",
    ]
