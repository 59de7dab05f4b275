"""Stand-ins for tools/train.py and tools/test.py that take no time, for tests of tools/study.

    python study_tools.py run ARGUMENTS        tools/study/run.py, with the two below as its tools
    python study_tools.py tools/train.py ...   "trains": a file per epoch, resumed from the last
    python study_tools.py tools/test.py ...    "tests": writes detections of nothing

Environment: CALLS, a file that each call appends a line to; FAIL, a method whose training fails;
HOLD, a file for which the training waits after its first epoch.
"""

import json
import os
import pickle
import signal
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve()


def run(arguments):
    sys.path.insert(0, str(HERE.parents[2] / "tools/study"))
    import jobs
    import run

    jobs.tool_command = lambda tool: [sys.executable, str(HERE), tool]
    run.main(arguments)


def note(*words):
    with Path(os.environ["CALLS"]).open("a") as calls:
        calls.write(" ".join(map(str, words)) + "\n")


def train(config, folder):
    from mmengine.config import Config

    cfg, folder = Config.fromfile(config), Path(folder)
    method = Path(folder).name.partition("_effnet")[0]
    if method == os.environ.get("FAIL"):
        note("fail", method)
        sys.exit(f"{method} does not train today")
    done = max([int(p.stem.partition("_")[2]) for p in folder.glob("epoch_*.pth")], default=0)
    signal.signal(signal.SIGTERM, lambda *_: (note("stopped", method), sys.exit(143)))
    note("train", method, "from", done, "threads", os.environ["OMP_NUM_THREADS"])
    logs = folder / f"log{done}/vis_data"
    logs.mkdir(parents=True)
    for epoch in range(done + 1, cfg.train_cfg.max_epochs + 1):
        row = json.dumps(dict(loss=1.0, time=0.5, step=10 * epoch))
        with (logs / "scalars.json").open("a") as file:
            file.write(row + "\n")
        (folder / f"epoch_{epoch}.pth").write_text("")
        (folder / f"epoch_{epoch - 1}.pth").unlink(missing_ok=True)
        while "HOLD" in os.environ and not os.path.exists(os.environ["HOLD"]):
            time.sleep(0.1)
    note("end", method)


def test(config, checkpoint, out):
    from mmengine.config import Config

    assert Path(checkpoint).is_file()
    content = json.loads(Path(Config.fromfile(config).test_evaluator.ann_file).read_text())
    empty = dict(bboxes=np.empty((0, 4)), scores=np.empty(0), labels=np.empty(0))
    found = [dict(img_id=image["id"], pred_instances=empty) for image in content["images"]]
    Path(out).write_bytes(pickle.dumps(found))
    note("test", Path(out).stem)


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    if kind == "run":
        run(rest)
    elif kind == "tools/train.py":
        assert rest[3:5] == ["--resume", "auto"]
        train(rest[0], rest[rest.index("--work-dir") + 1])
    else:
        test(rest[0], rest[1], rest[rest.index("--out") + 1])
