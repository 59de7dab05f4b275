"""Launches and synchronisations on CUDA, beside those of mmdet's own detectors and assigners.

Two images of 800x1333 and 80 classes for assignment; steps of a ResNet-50 detector on smaller
images, which launch the same kernels.
"""

import pytest
import torch
from helpers.paths import CONFIGS
from mmdet.models.task_modules.prior_generators import MlvlPointGenerator
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.structures import InstanceData

from misalign_det.models.task_modules.assigners.candidates import BatchGroundTruth

pytestmark = pytest.mark.cuda
STRIDES = (8, 16, 32, 64, 128)
ASSIGNERS = {
    "JLA": dict(type="JLAAssigner"),  # locations of several GTs weighted
    "JLA later": dict(type="JLAAssigner", weighted_until=0),  # to the GT of least loss
    "SpatialAlign": dict(type="SpatialAlignAssigner"),
}


@pytest.fixture
def device(simulated_cuda):
    if simulated_cuda is None:
        pytest.skip("counted on the simulated device alone")
    return simulated_cuda


def image(num_gts, seed):
    """Priors, predictions and GTs of an image of 800x1333 (1344 with its padding)."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*shape, generator=generator)

    sizes = [(-(-800 // stride), -(-1344 // stride)) for stride in STRIDES]
    points = MlvlPointGenerator(STRIDES).grid_priors(sizes, device="cpu", with_stride=True)
    priors = torch.cat(points)
    reach = rand(len(priors), 4) * priors[:, 2:3] * 8
    bboxes = torch.cat([priors[:, :2] - reach[:, :2], priors[:, :2] + reach[:, 2:]], dim=1)
    logits = torch.randn(len(priors), 80, generator=generator) - 4
    size = rand(num_gts, 2) * 200 + 20
    corner = rand(num_gts, 2) * torch.tensor([1100.0, 580.0])
    labels = torch.randint(0, 80, (num_gts,), generator=generator)
    predicted = InstanceData(priors=priors, scores=logits, bboxes=bboxes)
    return predicted.cuda(), InstanceData(
        bboxes=torch.cat([corner, corner + size], dim=1), labels=labels
    ).cuda()


def counts_of_assignment(device, config, num_gts, num_images=2):
    """All images at once."""
    images = [image(num_gts, seed) for seed in range(num_images)]
    priors = images[0][0].priors
    logits, bboxes = (torch.stack([p[key] for p, _ in images]) for key in ("scores", "bboxes"))
    gts = BatchGroundTruth.from_instances([gt for _, gt in images])
    assigner = TASK_UTILS.build(config)
    with device.count() as counts:
        assigner.assign_batch(priors[:, :2], priors[:, 2], logits, bboxes, gts)
    return counts


def counts_of_task_aligned(device, num_gts):
    """mmdet's assigner, image by image."""
    images = [image(num_gts, seed) for seed in range(2)]
    for predicted, _ in images:
        predicted.scores = predicted.scores.sigmoid()
    assigner = TASK_UTILS.build(dict(type="TaskAlignedAssigner", topk=13))
    with device.count() as counts:
        for pair in images:
            assigner.assign(*pair)
    return counts


@pytest.mark.parametrize("num_gts", [1, 7, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ASSIGNERS)
def test_assignment_launches_no_more_than_task_aligned(device, name, num_gts):
    counts = counts_of_assignment(device, ASSIGNERS[name], num_gts)
    peer = counts_of_task_aligned(device, num_gts)
    assert counts.num_launches <= peer.num_launches, counts.table()
    assert counts.num_syncs == 1 and next(iter(counts.syncs))[0] == "nonzero", counts.table()


@pytest.mark.parametrize("name", ASSIGNERS)
def test_launches_of_assignment_do_not_grow(device, name):
    """With objects or images."""
    few, many = (counts_of_assignment(device, ASSIGNERS[name], *n) for n in ((2, 2), (8, 3)))
    assert few.num_launches == many.num_launches and few.num_syncs == many.num_syncs == 1


def detector_parts(device, name, num_images=2, size=(3, 192, 256)):
    """Counts of the parts of a training step, and of the network and the rest at inference."""
    model = Config.fromfile(CONFIGS / f"{name}.py").model
    model.backbone.init_cfg = None
    detector = MODELS.build(model).to("cuda").train()
    head = detector.bbox_head
    packed = demo_mm_inputs(
        num_images, image_shapes=[size] * num_images, num_items=[7] * num_images, num_classes=80
    )
    packed = {key: [part.to("cuda") for part in parts] for key, parts in packed.items()}
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-4, momentum=0.9, foreach=True)
    found = {}

    def counted(part, function, *args):
        with device.count() as found[part]:
            return function(*args)

    def losses_of(outputs, samples):
        gts, ignored, metas = unpack_gt_instances(samples)
        return head.loss_by_feat(
            *outputs, batch_gt_instances=gts, batch_img_metas=metas,
            batch_gt_instances_ignore=ignored,
        )  # fmt: skip

    for _ in range(2):  # the first one fills what is made once
        data = detector.data_preprocessor(packed, True)
        feats = counted("network", detector.extract_feat, data["inputs"])
        outputs = counted("forward", head, feats)
        losses = counted("losses", losses_of, outputs, data["data_samples"])
        total = sum(sum(v) if isinstance(v, list) else v for v in losses.values())
        optimizer.zero_grad()
        counted("backward", total.backward)
        counted("optimizer", optimizer.step)
    detector.eval()
    head.test_cfg.score_thr = 0.0
    with torch.no_grad():
        for _ in range(2):
            data = detector.data_preprocessor({k: v[:1] for k, v in packed.items()}, False)
            counted("inference", detector.predict, data["inputs"], data["data_samples"])
    return found


def total(parts, *names):
    return sum(parts[name].num_launches for name in names)


STEP = ("network", "forward", "losses", "backward", "optimizer")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "step", "inference"),
    [
        ("jla_triplehead_r50_fpn_1x_coco", 1.25, 1.20),
        ("spatial-align_rfahead_r50_fpn_1x_coco", 1.10, 1.05),
        ("misalign_r50_fpn_1x_coco", 1.45, 1.25),
    ],
)
def test_launches_and_waits_of_a_detector(device, name, step, inference):
    ours, fcos = (detector_parts(device, config) for config in (name, "fcos_r50_fpn_1x_coco"))
    assert total(ours, *STEP) <= step * total(fcos, *STEP), {k: total(ours, k) for k in STEP}
    assert total(ours, "inference") <= inference * total(fcos, "inference")
    assert ours["forward"].num_syncs == ours["backward"].num_syncs == 0
    # One for the assigner's pairs, one for the number of positives, one in mmcv's focal
    # loss or mmdet's quality focal loss.
    assert ours["losses"].num_syncs <= 1 + 2, ours["losses"].table()
    assert ours["inference"].num_syncs <= fcos["inference"].num_syncs
    more = detector_parts(device, name, num_images=3, size=(3, 128, 320))
    assert more["losses"].num_syncs == ours["losses"].num_syncs
