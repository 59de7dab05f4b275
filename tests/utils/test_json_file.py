"""Reading JSON files: what an error says, and the state of the garbage collector."""

import gc

import pytest

from misalign_det.errors import InputError
from misalign_det.utils.json_file import no_garbage_collection, read_json


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
