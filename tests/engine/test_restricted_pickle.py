"""torch.load before torch 2.6, restricted to a list of types; also with the torch of today."""

import collections
import pickle

import pytest
import torch

from misalign_det.engine.restricted_pickle import restricted_load


class Call:
    """Unpickling it calls a function."""

    def __init__(self, function, *args):
        self.what = function, args

    def __reduce__(self):
        return self.what


def restricted(types=None, trusted=lambda: False):
    return restricted_load(types or {}, trusted)


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_in_either_file_format(tmp_path, zipped):
    """Storages that are shared, buffers, dtypes, and what Python 2 calls by other names."""
    table = torch.arange(6.0).view(2, 3)
    saved = collections.OrderedDict(
        table=table, row=table[1], parameter=torch.nn.Parameter(table.half()),
        size=table.shape, dtype=torch.bfloat16, device=torch.device("cpu"), kinds={1, 2}, raw=b"ab",
        flags=torch.tensor([True]), brain=table.bfloat16(), whole=torch.tensor([1, 2]),
    )  # fmt: skip
    torch.save(saved, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    load = torch.load
    with restricted():
        for kwargs in ({}, dict(weights_only=False), dict(weights_only=True, map_location="cpu")):
            found = torch.load(tmp_path / "x.pth", **kwargs)
            assert list(found) == list(saved)
            for name, value in saved.items():
                same = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
                assert same(found[name], value) and type(found[name]) is type(value)
            found["table"][1, 0] = 9
            assert found["row"][0] == 9
    assert torch.load is load


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("function, name", [(exec, "builtins.exec"), (eval, "builtins.eval")])
def test_a_function_is_not_called(tmp_path, zipped, function, name):
    ran = tmp_path / "ran"
    content = {"state_dict": {}, "x": Call(function, f"open({str(ran)!r}, 'w')")}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    for kwargs in ({}, dict(weights_only=False)):
        with pytest.raises(pickle.UnpicklingError, match=f"GLOBAL {name}"), restricted():
            torch.load(tmp_path / "x.pth", **kwargs)
    assert not ran.exists()
    with restricted(trusted=lambda: True):
        torch.load(tmp_path / "x.pth", weights_only=False)
    assert ran.exists()


def test_what_is_allowed_stands_for_the_name(tmp_path):
    """The function of the list is called, not the one that the name finds."""
    torch.save({"x": Call(getattr, "text", "upper")}, tmp_path / "x.pth")
    with restricted({"builtins.getattr": lambda *args: args}):
        assert torch.load(tmp_path / "x.pth") == {"x": ("text", "upper")}
    with pytest.raises(pickle.UnpicklingError, match="GLOBAL builtins.getattr"), restricted():
        torch.load(tmp_path / "x.pth")


def test_a_part_of_an_allowed_class_is_not_allowed(tmp_path):
    """Protocol 4 asks for ``OrderedDict.fromkeys`` in one name with a dot."""
    torch.save({"x": collections.OrderedDict.fromkeys}, tmp_path / "x.pth", pickle_protocol=4)
    with pytest.raises(pickle.UnpicklingError, match="GLOBAL "), restricted():
        torch.load(tmp_path / "x.pth")
