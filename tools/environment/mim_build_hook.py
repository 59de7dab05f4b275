"""Build hook: lets `mim train misalign_det CONFIG` find tools and configs in every install.

`mim` has no interface for this; each fork looks in a place of its own, and gives up when it finds
two files of the config's name there.

| install  | openmim looks in                     | onedl-mim looks in                      |
| -------- | ------------------------------------ | --------------------------------------- |
| wheel    | site-packages/misalign_det           | the first path component of RECORD      |
| editable | the first line of top_level.txt, as  | the folder in direct_url.json, that is, |
|          | site-packages/misalign_det is absent | the repository                          |

Wheel: `force-include` in pyproject.toml puts the tree under misalign_det/.mim for openmim. pip
sorts RECORD, and "misalign_det-0.1.0.dist-info" comes before "misalign_det/" ("-" sorts before
"/"), so onedl-mim would look in dist-info. The same tree therefore also goes under
`_misalign_det_mim`, which sorts before both. `force-include` maps each source to one place only,
hence the temporary copy.

Editable: nothing is copied. A copy in site-packages would go stale, and with the environment inside
the repository (.venv) onedl-mim would find each config twice. For openmim, top_level.txt names the
repository's absolute path: `os.path.join(site-packages, <absolute path>)` is that path.
"""

import shutil
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FIRST_SORTING = "_misalign_det_mim"


class MimBuildHook(BuildHookInterface):
    """Called by hatchling around each wheel it builds; `version` is "standard" or "editable"."""

    def initialize(self, version: str, build_data: dict) -> None:
        """Add the files that the table above asks for."""
        self._temporary = tempfile.TemporaryDirectory()
        folder = Path(self._temporary.name)
        if version == "editable":
            build_data["force_include_editable"] = self._top_level_naming_the_repository(folder)
        else:
            build_data["force_include"].update(self._tree_that_sorts_first(folder))

    def finalize(self, version: str, build_data: dict, artifact_path: str) -> None:
        """Remove the temporary files."""
        self._temporary.cleanup()

    def _top_level_naming_the_repository(self, folder: Path) -> dict[str, str]:
        top_level = folder / "top_level.txt"
        top_level.write_text(f"{self.root}\n", encoding="utf-8")
        dist_info = f"{self.metadata.core.raw_name}-{self.metadata.version}.dist-info"
        return {str(top_level): f"{dist_info}/top_level.txt"}

    def _tree_that_sorts_first(self, folder: Path) -> dict[str, str]:
        root, skip = Path(self.root), shutil.ignore_patterns("__pycache__", "*.pyc")
        for name in ("configs", "tools"):
            shutil.copytree(root / name, folder / name, ignore=skip)
        shutil.copy(root / "model-index.yml", folder)
        return {str(path): f"{FIRST_SORTING}/.mim/{path.name}" for path in folder.iterdir()}
