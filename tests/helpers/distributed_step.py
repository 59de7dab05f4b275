"""One process of two in tests/engine/test_distributed_step.py.

    RANK=0 WORLD_SIZE=2 python distributed_step.py STORE OUT

takes two training steps of each detector on its share of two images; the first process writes
losses and gradients of the first ones. With WORLD_SIZE=1 the batch is joint.
"""

import os
import sys
from datetime import timedelta

import torch
import torch.distributed
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.structures import InstanceData

from helpers.paths import ROOT
from helpers.tiny_detectors import ANCHORS, COMMON, CONFIG, FOCAL, HEADS, POINTS, REST

DC = "loss_cls=dict(type='DCLoss', loss=dict(type='{}', use_sigmoid=True))"
SINGLE = ANCHORS.format("[1.0]", 1).replace("base_scale=4", "base_scale=8")
GROUPS = "norm_cfg=dict(type='GN', num_groups=2)"
IAC = f"assigner=dict(type='IACATSSAssigner', topk=9, score_threshold=0.3), {REST}"
CASES = {
    "TripleHead": (
        HEADS["TripleHead"][0],
        "assigner=dict(type='JLAAssigner', per_gt_reweight=1.0)",
    ),
    "RFAHead": HEADS["RFAHead"],
    "DCFCOSHead": (f"{POINTS}, center_sampling=True, {DC.format('FocalLoss')}", "assigner=None"),
    "DCATSSHead": (
        f"{COMMON}, {SINGLE}, {GROUPS}, {DC.format('FocalLoss')}, "
        "bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2]), "
        "loss_bbox=dict(type='GIoULoss'), "
        "loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True)",
        IAC,
    ),
    "DCGFLHead": (
        f"{COMMON}, {SINGLE}, {GROUPS}, {DC.format('QualityFocalLoss')}, reg_max=7, "
        "loss_bbox=dict(type='GIoULoss')",
        IAC,
    ),
}
# mmdet's RetinaHead divides by the positives of each process alone: two processes do not take the
# step of one.
_RETINA, _TRAIN = HEADS["RetinaHead"]
OWN_DIVISOR = {
    "DCRetinaHead": (_RETINA.replace(FOCAL, DC.format("FocalLoss")), _TRAIN),
    "RetinaHead": (_RETINA, _TRAIN),
}

# Its backbone is EfficientNetLite0 with frozen stages.
FROZEN = {"FCOSHead": HEADS["FCOSHead"]}

COUNTS = ((3, 6), (4, 0))  # objects of the two images


def detector(head):
    arguments, train = {**CASES, **OWN_DIVISOR, **FROZEN}[head]
    cfg = Config.fromstring(
        CONFIG.format(root=ROOT, head=head, arguments=arguments, train=train, threshold=0, most=5),
        ".py",
    )
    cfg.model.backbone.norm_eval = True  # batch statistics are each process's own
    if head in FROZEN:
        cfg.model.backbone = dict(type="EfficientNetLite0", frozen_stages=1, out_indices=(2, 3, 4))
        cfg.model.neck.update(in_channels=[24, 40, 112], start_level=1)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    if head == "DCGFLHead":  # its box loss weighs by the scores, and by at least 1 in all
        torch.nn.init.zeros_(model.bbox_head.gfl_cls.bias)
    return model


def batch(counts):
    """Images of 128 x 128 with so many objects."""
    generator = torch.Generator().manual_seed(1)
    images, samples = [], []
    for count in counts:
        images.append(torch.rand(3, 128, 128, generator=generator) * 255)
        corner = torch.rand(count, 2, generator=generator) * 70
        boxes = torch.cat([corner, corner + 15 + torch.rand(count, 2, generator=generator) * 40], 1)
        labels = torch.randint(0, 6, (count,), generator=generator)
        meta = dict(img_shape=(128, 128), ori_shape=(128, 128), pad_shape=(128, 128),
                    batch_input_shape=(128, 128), scale_factor=(1.0, 1.0))  # fmt: skip
        sample = DetDataSample(metainfo=meta)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=labels[:0])
        samples.append(sample)
    return images, samples


def step(head, counts, rank, world):
    """Losses, averaged over the processes, and gradients."""
    plain = detector(head)
    model = MMDistributedDataParallel(plain, broadcast_buffers=False) if world > 1 else plain
    plain.train()  # as mmengine's loops: after the wrapper has collected what is trained
    images, samples = batch(counts)
    found = None
    for _ in range(2):  # the second fails where a parameter had no part in the first
        data = dict(inputs=images[rank::world], data_samples=samples[rank::world])
        losses = model(**plain.data_preprocessor(data, True), mode="loss")
        total, log_vars = plain.parse_losses(losses)
        model.zero_grad()
        total.backward()
        if found is None:
            values = torch.stack([value.detach() for value in log_vars.values()])
            torch.distributed.all_reduce(values)
            gradients = {name: p.grad.clone() for name, p in plain.named_parameters()
                         if p.requires_grad}  # fmt: skip
            found = dict(zip(log_vars, values / world)), gradients
    return found


def main(store, out):
    torch.set_num_threads(1)
    register_all_modules()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=world,
        timeout=timedelta(minutes=10),
    )  # fmt: skip
    found = {
        (head, counts): step(head, counts, rank, world)
        for head in (*CASES, *OWN_DIVISOR, *FROZEN)
        for counts in COUNTS
    }
    if rank == 0:
        torch.save(found, out)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
