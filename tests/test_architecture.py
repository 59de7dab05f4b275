"""Properties of the package as a whole."""

import subprocess
import sys

NEWLY_LOADED = """
import sys
import mmcv.ops, mmdet.models
before = set(sys.modules)
import misalign_det
new = {name for name in set(sys.modules) - before if name.split(".")[0] != "misalign_det"}
print("newly loaded:", *sorted(new))
"""


def test_import_is_light():
    """A config that names misalign_det loads nothing but what mmdet's models have loaded."""
    done = subprocess.run(
        [sys.executable, "-c", NEWLY_LOADED], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].split() == ["newly", "loaded:"]
