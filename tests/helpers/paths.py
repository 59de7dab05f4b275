"""Where the tests find the repository's own files and mmdet's configs."""

from pathlib import Path

import mmdet

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
HELPERS = ROOT / "tests/helpers"
TOOLS = ROOT / "tools"
MMDET_CONFIGS = Path(mmdet.__file__).parent / ".mim/configs"
