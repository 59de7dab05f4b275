"""Where a tool writes: folders are made, and a bad place is said with the option that names it."""

from pathlib import Path

import pytest

from misalign_det.analysis.output_files import output_file, output_folder
from misalign_det.errors import InputError


def test_folders_are_made_and_nothing_is_left_in_them(tmp_path):
    path = tmp_path / "a/b/r.json"
    assert output_file(str(path)) == path
    assert list(path.parent.iterdir()) == []
    assert output_folder(tmp_path / "c/d") == tmp_path / "c/d"
    assert list((tmp_path / "c/d").iterdir()) == []
    assert output_folder(tmp_path / "c/d") == tmp_path / "c/d"  # that is there


def test_a_file_that_is_there_stays_as_it_is(tmp_path):
    path = tmp_path / "r.json"
    path.write_text("of before")
    before = path.stat().st_mtime_ns
    output_file(path)
    assert path.read_text() == "of before" and path.stat().st_mtime_ns == before
    assert output_file("/dev/null") == Path("/dev/null")


@pytest.mark.parametrize("below", ["x.json", "y/x.json"])
def test_a_file_where_a_folder_is_needed(tmp_path, below):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match=rf"^--out {file}/{below}: {file} is a file, not a folder"):
        output_file(file / below)
    with pytest.raises(InputError, match=rf"^--work-dir {file}: {file} is a file, not a folder"):
        output_folder(file, "--work-dir")


def test_a_folder_where_a_file_is_needed(tmp_path):
    with pytest.raises(InputError, match=rf"^--out {tmp_path} is a folder. Name a file"):
        output_file(tmp_path)


def test_places_where_nothing_can_be_written(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="^--out-dir /proc/no/where: nothing can be written"):
        output_folder("/proc/no/where")

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "r.json").write_text("")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"^--out .*r\.json: Permission denied\. Name another"):
        output_file(tmp_path / "r.json")
