"""One of two processes of test_ambiguity_per_gt_reweight.py.

    RANK=0 WORLD_SIZE=2 python per_gt_reweight_step.py STORE OUT

assigns with per_gt_reweight=1 and writes the summed weight of each object. All locations have the
same predictions, so every location in an object's box is a positive of it.
"""

import os
import sys
from datetime import timedelta

import torch
import torch.distributed
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData

import misalign_det  # noqa: F401
from misalign_det.models.task_modules.assigners.candidates import BatchGroundTruth

SIDE = torch.arange(8) * 8 + 4.0
POINTS = torch.cartesian_prod(SIDE, SIDE)
FOUR, ONE = [0.0, 0, 16, 16], [32.0, 32, 40, 40]  # by the locations in the box


def objects(*boxes):
    return InstanceData(
        bboxes=torch.tensor(boxes).reshape(-1, 4), labels=torch.zeros(len(boxes)).long()
    )


def total_weights(assigner, *boxes, points=POINTS):
    """Summed weight of each object, in a batch of one image."""
    gts = BatchGroundTruth.from_instances([objects(*boxes)])
    logits, bboxes = torch.zeros(1, len(points), 1), torch.full((1, len(points), 4), 99.0)
    return assigner.assign_batch(points, None, logits, bboxes, gts).weights.sum(dim=1)


def main(store, out):
    torch.set_num_threads(1)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=world,
        timeout=timedelta(minutes=10),
    )  # fmt: skip
    assigner = TASK_UTILS.build(dict(type="mmdet.JLAAssigner", per_gt_reweight=1.0))
    here = rank == 0
    found = {
        "both": total_weights(assigner, *([FOUR, ONE] if here else [ONE])),
        "one": total_weights(assigner, *([FOUR, ONE] if here else [])),
        "no locations": total_weights(
            assigner, *([FOUR, ONE] if here else [ONE]), points=POINTS if here else POINTS[:0]
        ),
        "image": None,
    }
    if here:
        predicted = InstanceData(
            priors=POINTS, scores=torch.zeros(64, 1), bboxes=torch.full((64, 4), 99.0)
        )
        plain = TASK_UTILS.build(dict(type="mmdet.JLAAssigner"))
        for _ in range(2):
            result = plain.assign(predicted, objects(FOUR, ONE))
        found["image"] = result.batch_assign_result.weights.sum(dim=1)
    torch.distributed.barrier()
    torch.save(found, out)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
