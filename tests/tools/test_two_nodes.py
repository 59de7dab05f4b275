"""tools/dist_train.sh on two machines, which are network namespaces of this one.

Skipped where namespaces are not allowed.
"""

import os
import shutil
import subprocess
import sys
import time

import pytest
import torch
from helpers.paths import ROOT
from helpers.rank_states import state_file
from helpers.two_nodes import NoNamespacesError, two_nodes

CONFIG = """
_base_ = '{tiny}'
custom_imports = dict(imports=['misalign_det', 'helpers.rank_states'])
custom_hooks = [dict(type='RankStates')]
model = dict(backbone=dict(norm_eval=True))  # batch statistics are each process's own
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(160, 120), keep_ratio=True),
    dict(type='PackDetInputs'),
]))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
train_cfg = dict(max_iters=4, val_interval=4)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
randomness = dict(seed=3)
"""
LIMIT = 1800  # seconds until a hanging process counts as such,
AFTER_ONE = 600  # and after another one has failed
TIMEOUT = 150  # of the connections, where a test waits for it


@pytest.fixture
def nodes():
    yield from joined()


@pytest.fixture(scope="module")
def nodes_of_the_module():
    yield from joined()


def joined():
    try:
        with two_nodes() as pair:
            yield pair
    except NoNamespacesError as error:
        pytest.skip(f"no two network namespaces: {error}")


class Run:
    """A training on both nodes, each in a folder of its own and with options of its own."""

    def __init__(self, nodes, config, folder, environ, *options, hold=""):
        self.nodes, self.folder = nodes, folder
        folder.mkdir()
        self.processes, self.logs = [], []
        for rank, node in enumerate(nodes):
            own = folder / f"node{rank}"
            own.mkdir()
            self.logs.append(own / "log")
            variables = {**environ, "RANK_STATES": str(folder), "HOLD": hold, "NNODES": "2",
                         "NODE_RANK": str(rank), "MASTER_ADDR": nodes[0].address,
                         "PORT": "29611"}  # fmt: skip
            command = ["bash", ROOT / "tools/dist_train.sh", config, 1, *options[rank]]
            self.processes.append(node.start(command, self.logs[rank], own, variables))

    def wait_for(self, path):
        end = time.monotonic() + LIMIT
        while not path.exists():
            assert all(process.poll() is None for process in self.processes), self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.05)

    def ended(self):
        """Whether each node ended with status 0."""
        end = time.monotonic() + LIMIT
        while any(process.poll() is None for process in self.processes):
            if any(process.poll() for process in self.processes):
                end = min(end, time.monotonic() + AFTER_ONE)
            if time.monotonic() > end:
                pytest.fail(f"nodes do not end:\n{self.said()}")
            time.sleep(0.5)
        return [process.returncode == 0 for process in self.processes]

    def said(self):
        return "\n".join(f"{log}:\n{log.read_text()}" for log in self.logs)


@pytest.fixture(scope="module")
def config(tiny_config, tmp_path_factory):
    path = tmp_path_factory.mktemp("two_nodes") / "steps.py"
    path.write_text(CONFIG.format(tiny=tiny_config))
    return path


@pytest.fixture(scope="module")
def variables(environ):
    """gloo finds the network interface by itself."""
    names = {name: value for name, value in environ.items() if name != "GLOO_SOCKET_IFNAME"}
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    return {**names, "PYTHON": sys.executable, "PYTHONPATH": path}


@pytest.fixture(scope="module")
def whole(nodes_of_the_module, config, variables, tmp_path_factory):
    """The folder of an uninterrupted training; the nodes have no folder in common."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run = Run(nodes_of_the_module, config, folder, variables, [], [])
    assert run.ended() == [True, True], run.said()
    return folder


def assert_same(found, expected, rtol=0.0, atol=0.0):
    for part, values in expected.items():
        assert found[part].keys() == values.keys()
        for name, value in values.items():
            torch.testing.assert_close(
                found[part][name], value, rtol=rtol, atol=atol * value.abs().max().item(), msg=name
            )


def states(folder, step):
    return [torch.load(state_file(folder, step, rank)) for rank in (0, 1)]


@pytest.mark.slow
def test_the_step_of_one_process_on_the_joint_batch(whole, config, variables, tmp_path):
    command = [sys.executable, ROOT / "tools/train.py", config, "--cfg-options",
               "train_dataloader.batch_size=2", "train_cfg.max_iters=1"]  # fmt: skip
    done = subprocess.run(
        list(map(str, command)), cwd=tmp_path, env={**variables, "RANK_STATES": str(tmp_path)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    joint = torch.load(state_file(tmp_path, 1, 0))
    first, second = states(whole, 1)
    assert any(value.abs().max() > 0 for value in joint["momentum"].values())
    assert_same(first, joint, rtol=1e-3, atol=1e-4)
    assert_same(second, first)


@pytest.mark.slow
def test_nodes_without_a_common_folder_train_and_evaluate(whole):
    """Only the first node writes checkpoints, and both have the same parameters at the end."""
    work_dirs = [whole / f"node{rank}/work_dirs/steps" for rank in (0, 1)]
    assert (work_dirs[0] / "iter_4.pth").is_file() and not list(work_dirs[1].glob("*.pth"))
    assert "coco/bbox_mAP: " in (whole / "node0/log").read_text()
    first, second = states(whole, 4)
    assert_same(second, first)


@pytest.mark.slow
def test_a_node_is_killed_and_the_run_resumed(whole, nodes, config, variables, tmp_path):
    """Both with a work dir on a disk that they share."""
    options = ["--work-dir", tmp_path / "shared", "--resume", "auto"]
    run = Run(nodes, config, tmp_path / "killed", variables, options, options, hold="1 3")
    run.wait_for(tmp_path / "shared/last_checkpoint")
    run.wait_for(state_file(run.folder, 3, 1))
    nodes[1].kill()
    assert run.ended() == [False, False], run.said()
    assert not state_file(run.folder, 4, 0).exists()
    again = Run(nodes, config, tmp_path / "again", variables, options, options)
    assert again.ended() == [True, True], again.said()
    assert not state_file(again.folder, 2, 0).exists()
    for rank, expected in enumerate(states(whole, 4)):
        assert_same(states(again.folder, 4)[rank], expected)


@pytest.mark.slow
def test_the_first_node_loses_its_power(whole, nodes, config, variables, tmp_path):
    """The other ends by the config's timeout. Each has its own disk: the checkpoint is copied."""
    disks = [tmp_path / "disk0", tmp_path / "disk1"]
    limit = ["--cfg-options", f"env_cfg.dist_cfg.timeout={TIMEOUT}"]
    options = [["--work-dir", disk, *limit] for disk in disks]
    run = Run(nodes, config, tmp_path / "killed", variables, *options, hold="0 3")
    run.wait_for(state_file(run.folder, 3, 0))
    nodes[0].unplug()
    nodes[0].kill()
    assert run.ended() == [False, False], run.said()
    assert not state_file(run.folder, 4, 1).exists()
    nodes[0].plug_in()

    options = [["--work-dir", disk, "--resume", "auto"] for disk in disks]
    apart = Run(nodes, config, tmp_path / "apart", variables, *options)
    assert apart.ended() == [False, False], apart.said()
    for log in apart.logs:
        lines = [line for line in log.read_text().splitlines() if line.startswith("train.py: ")]
        assert "machine 0 resumes iter_2.pth" in lines[-1] and "1 from scratch" in lines[-1]
    assert not list(apart.folder.glob("step*"))

    shutil.copy(disks[0] / "iter_2.pth", disks[1])
    options = [["--work-dir", disk, "--resume", disk / "iter_2.pth"] for disk in disks]
    again = Run(nodes, config, tmp_path / "again", variables, *options)
    assert again.ended() == [True, True], again.said()
    for rank, expected in enumerate(states(whole, 4)):
        assert_same(states(again.folder, 4)[rank], expected)


@pytest.mark.parametrize("script", ["dist_train.sh", "dist_test.sh"])
@pytest.mark.parametrize("given", [{}, {"NODE_RANK": "0"}, {"MASTER_ADDR": "10.0.0.1"}])
def test_several_nodes_need_a_rank_and_an_address(script, given):
    names = {k: v for k, v in os.environ.items() if k not in ("NODE_RANK", "MASTER_ADDR")}
    done = subprocess.run(
        ["bash", ROOT / "tools" / script, "config", "checkpoint", "1"], capture_output=True,
        env={**names, "NNODES": "2", "PYTHON": "false", **given}, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "NNODES=2 needs NODE_RANK of this machine and MASTER_ADDR of machine 0\n"
