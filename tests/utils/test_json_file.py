"""Reading JSON files: what an error says, and the state of the garbage collector."""

import gc
import json

import pytest

from misalign_det.errors import InputError
from misalign_det.utils.json_file import json_text, no_garbage_collection, read_json


def test_content(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [1, 2.5, null]}')
    assert read_json(str(tmp_path / "a.json"), "here") == {"a": [1, 2.5, None]}


def test_a_missing_file_and_the_root_are_named(tmp_path):
    path = str(tmp_path / "none.json")
    with pytest.raises(InputError, match=r"^here: there is no annotation file .*none\.json$"):
        read_json(path, "here")
    with pytest.raises(InputError, match="data_root is 'data/'.*--cfg-options data_root=FOLDER"):
        read_json(path, "here", "data/")


@pytest.mark.parametrize("text", ['{"a": [1, 2', "\xff", "[" * 100_000])
def test_what_is_no_json_is_named_with_its_size(tmp_path, text):
    path = tmp_path / "cut.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(
        InputError, match=rf"here: .*cut\.json is not valid JSON.*{len(text)} bytes"
    ):
        read_json(str(path), "here")


@pytest.mark.parametrize(
    ("encoding", "called"),
    [("utf-8-sig", "UTF-8 with a byte order mark"), ("utf-16", "UTF-16"), ("utf-32-le", "UTF-32")],
)
def test_an_encoding_that_pycocotools_does_not_read(tmp_path, encoding, called):
    path = tmp_path / "a.json"
    path.write_text('{"a": "é"}', encoding=encoding)
    assert read_json(str(path), "here") == {"a": "é"}
    with pytest.raises(InputError, match=rf"^here: \S+a\.json is in {called}.*plain UTF-8\.$"):
        read_json(str(path), "here", "data/")
    path.write_text('{"a": "é"}', encoding="utf-8")
    assert read_json(str(path), "here", "data/") == {"a": "é"}


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_is_left_as_it_was(on):
    was = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        with no_garbage_collection():
            assert not gc.isenabled()
        assert gc.isenabled() is on
        with pytest.raises(KeyError), no_garbage_collection():
            raise KeyError
        assert gc.isenabled() is on
    finally:
        (gc.enable if was else gc.disable)()


def test_figures_that_json_does_not_have_are_null():
    found = dict(a=float("nan"), b=[1.5, float("inf"), dict(c=-float("inf"))], d=(2, "NaN", None))
    text = json_text(found)
    assert json.loads(text, parse_constant=pytest.fail) == dict(
        a=None, b=[1.5, None, dict(c=None)], d=[2, "NaN", None]
    )
    assert text.startswith('{\n  "a"') and json_text([1, 2], indent=None) == "[1, 2]"
