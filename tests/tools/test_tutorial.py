"""tools/tutorial.ipynb, executed as it stands, with a small set and a config of one step."""

from pathlib import Path

import nbformat
import pytest
from helpers.paths import ROOT
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOK = ROOT / "tools/tutorial.ipynb"
PARTS = ("misalign_det", "configs", "tools", "pyproject.toml")


def with_check(cell):
    """The cell, and one that fails if a command of it did: IPython itself goes on."""
    if cell.cell_type == "code" and "!python" in cell.source:
        return cell, nbformat.v4.new_code_cell("assert _exit_code == 0")
    return (cell,)


@pytest.mark.slow
def test_it_runs_from_the_first_cell_to_the_last(shapes, tiny_config, tmp_path, monkeypatch):
    for name in PARTS:
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (settings,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    settings.source = (
        f"FOLDER = {str(shapes)!r}\nCONFIG = {str(tiny_config)!r}\n"
        "OPTIONS = '--cfg-options default_hooks.logger.interval=1'\nWORK = 'run'\n"
    )
    shown = list(notebook.cells)
    notebook.cells = [part for cell in shown for part in with_check(cell)]
    client = NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": tmp_path}})
    try:
        client.execute()
    except CellExecutionError as error:
        said = [str(cell.outputs) for cell in shown if cell.get("outputs")]
        raise AssertionError("\n".join(said)[-5000:]) from error

    outputs = {cell.id: str(cell.get("outputs")) for cell in shown}
    assert "COCO, 6 classes" in outputs["train"] and "4 train, 4 val" in outputs["train"]
    assert "coco/bbox_mAP" in outputs["test"]
    assert "image/png" in outputs["pictures"] and "image/png" in outputs["curves"]
    assert ": AP " in outputs["report"] and (tmp_path / "run/report.html").is_file()
    assert (tmp_path / "run/model.onnx").is_file()


def test_it_is_stored_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) > 5 and all(not cell.outputs for cell in cells)
    assert all(cell.execution_count is None for cell in cells)
    assert Path(NOTEBOOK).stat().st_size < 20_000
