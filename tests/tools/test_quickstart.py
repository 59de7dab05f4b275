"""tools/quickstart.sh: what it shows of a training's log. CI does not run the training itself."""

import re
import subprocess

from helpers.paths import ROOT
from mmengine.config import Config

SCRIPT = (ROOT / "tools/quickstart.sh").read_text()
LOG = """\
11/27 13:31:40 - mmengine - INFO - Epoch(train)  [2][ 40/100]  base_lr: 2.7e-04 lr: 2.7e-04  \
eta: 0:01:12  time: 0.2986  data_time: 0.0377  grad_norm: 2.4018  loss: 1.5995  loss_cls: 0.1843
11/27 13:31:53 - mmengine - INFO - Epoch(val) [2][10/13]    eta: 0:00:03  time: 1.1752
11/27 13:31:58 - mmengine - INFO - Saving checkpoint at 2 epochs
11/27 13:31:58 - mmengine - INFO - Epoch(val) [2][13/13]    coco/bbox_mAP: 0.5540  \
coco/bbox_mAP_50: 0.8520  coco/bbox_mAP_75: 0.6090
"""


def function(name):
    return re.search(rf"^{name}\(\) \{{.*?^\}}", SCRIPT, re.S | re.M)[0]


def test_of_the_log_progress_and_ap_are_shown():
    done = subprocess.run(
        ["bash", "-c", f"{function('progress')}\nprogress"],
        input=LOG, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == (
        "    epoch 2, step 40/100, loss 1.5995, 0:01:12 to go\n"
        "    validation: AP 0.5540, AP50 0.8520\n"
    )


def test_a_training_that_fails_ends_with_the_end_of_its_log(tmp_path):
    script = (
        "set -euo pipefail\n"
        f"work={tmp_path} config=x id=1\n"
        "is_run() { false; }\n"
        "mim() { seq 30; echo error: no data; return 1; }\n"
        f"{function('progress')}\n{function('train')}\ntrain || echo failed\n"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "failed\n"
    assert done.stderr.splitlines() == [*map(str, range(12, 31)), "error: no data"]
    assert not (tmp_path / ".finished").exists()


def test_its_config_reads_the_set_that_it_draws():
    name = re.search(r"^name=(\S+)$", SCRIPT, re.M)[1]
    cfg = Config.fromfile(ROOT / f"configs/{name}.py")
    data = re.search(r"^data=(\S+)$", SCRIPT, re.M)[1]
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.data_root == f"{data}/"
    assert cfg.test_evaluator.ann_file == f"{data}/annotations/instances_val.json"
