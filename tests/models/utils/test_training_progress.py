"""Training progress follows the runner's counters, also in an interrupted and resumed run."""

import pytest
import torch
from mmdet.registry import TASK_UTILS
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from misalign_det.engine.checkpoint import tensors_only
from misalign_det.models.utils.training_progress import training_progress


class StageRecorder(BaseModel):
    """A one-parameter model that records the assigner's rule at each step and stops at one."""

    def __init__(self, stages, stop_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.assigner = TASK_UTILS.build(dict(type="JLAAssigner"))
        self.stages, self.stop_at = stages, stop_at

    def forward(self, inputs, mode="loss"):
        iteration = MessageHub.get_current_instance().get_info("iter")
        if iteration == self.stop_at:
            raise KeyboardInterrupt
        self.stages.append((iteration, self.assigner.ambiguous_mode()))
        return dict(loss=self.weight * inputs.float().mean())


def train(folder, name, resume=False, stop_at=None):
    stages = []
    runner = Runner(
        model=StageRecorder(stages, stop_at),
        work_dir=str(folder),
        train_dataloader=dict(
            batch_size=2,
            sampler=dict(type="DefaultSampler", shuffle=False),
            dataset=[torch.tensor(float(i)) for i in range(6)],
            collate_fn=lambda batch: dict(inputs=torch.stack(batch)),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
        default_hooks=dict(checkpoint=dict(type="AtomicCheckpointHook", interval=1)),
        resume=resume,
        experiment_name=name,
        default_scope="mmdet",
        log_level="ERROR",
    )
    with tensors_only(trust=False):  # mmengine 0.10.7 alone cannot resume under torch >= 2.6
        runner.train()
    return stages


def test_a_resumed_run_is_in_the_stage_of_an_uninterrupted_one(tmp_path):
    whole = train(tmp_path / "whole", "stage_whole")
    assert whole == [(i, "soft" if i < 3 else "argmin") for i in range(9)]
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", "stage_first", stop_at=5)
    resumed = train(tmp_path / "parts", "stage_second", resume=True)
    assert resumed == whole[3:]  # from the checkpoint after the first epoch of three steps


def test_outside_a_runner_progress_is_zero():
    DefaultScope.get_instance("stage_none", scope_name="mmdet")
    hub = MessageHub.get_instance("stage_none")
    assert MessageHub.get_current_instance() is hub
    assert training_progress() == 0.0
    hub.update_info("iter", 30)
    hub.update_info("max_iters", 120)
    assert training_progress() == 0.25


@pytest.mark.parametrize(
    "counters",
    [{}, dict(iter=3), dict(max_iters=9), dict(iter=3, max_iters=0), dict(iter=3, max_iters=None)],
    ids=str,
)
def test_without_both_counters_progress_is_zero(counters):
    hub = MessageHub.get_current_instance()
    for name, value in counters.items():
        hub.update_info(name, value)
    assert training_progress() == 0.0
