"""Positives by the IAC score on a GPU: the CPU's decisions, few launches, kernels that compile."""

import pytest
import torch
from helpers.iac_cases import COMMON, boxes, instances, predictions
from helpers.kernel_compilation import compile_for_gpus
from mmdet.models.task_modules.assigners import ATSSAssigner, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData

from misalign_det.models.utils import blockwise_iou

KINDS = ["IACAssigner", "IACATSSAssigner"]


def assigner(kind, **options):
    common = COMMON if kind == "IACAssigner" else dict(topk=3)
    return TASK_UTILS.build(dict(type=kind, **{**common, **options}))


def levels(kind, num_priors):
    return [] if kind == "IACAssigner" else [[num_priors]]


@pytest.mark.cuda
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_the_cpu(kind, seed):
    """Equal scores, boxes twice, none or all a candidate, scores below zero, ignored regions."""
    generator = torch.Generator().manual_seed(seed)
    num_priors, num_gts = 1 + 30 * seed, 1 + (5 * seed) % 9
    priors, gts = boxes(num_priors, seed), boxes(num_gts, seed + 1)
    priors[::5], gts[1::3] = priors[:1].clone(), gts[:1].clone()
    if seed % 3 == 0:
        priors, gts = priors.round(), gts.round()
    scores = (torch.rand(num_priors, 3, generator=generator) * 5).round() / 5 - int(seed == 4)
    labels = torch.randint(0, 3, (num_gts,), generator=generator)
    mine = assigner(
        kind,
        score_topk=[1, 2, 3, 4, 8, 2, 3, 4][seed],
        score_threshold=[0.5, 0.0, 0.45, 2.0, -1.0, 0.5, 0.3, 0.4][seed],
        score_alpha=[0.5, 0.3, 1.0, 0.5, 1.0, 0.0, 0.7, 0.9][seed],
        min_iou=[0.1, 0.3, 0.0][seed % 3],
        ignore_iof_thr=0.3,
    )
    args = predictions(priors, scores), *levels(kind, num_priors), instances(gts, labels)
    args = *args, instances(boxes(seed % 3, seed + 2))
    expected = mine.assign(*args)
    found = mine.assign(*(arg if isinstance(arg, list) else arg.to("cuda") for arg in args))
    for name in ("gt_inds", "labels", "max_overlaps"):
        assert torch.equal(getattr(found, name).cpu(), getattr(expected, name)), name


@pytest.mark.cuda
def test_scores_below_zero_ascend():
    """The bits of a negative float descend with it."""
    options = dict(pos_iou_thr=0.99, match_low_quality=False, score_alpha=1, score_threshold=-1)
    pred = predictions([[0, 0, 20, 12], [0, 0, 20, 13]], [[-0.2], [-0.9]])
    mine = assigner("IACAssigner", score_topk=1, **options)
    found = mine.assign(pred.to("cuda"), instances([[0, 0, 20, 20]]).to("cuda")).gt_inds
    assert (found > 0).tolist() == [True, False]


@pytest.mark.cuda
@pytest.mark.parametrize("kind", KINDS)
def test_more_pairs_than_one_block(kind):
    """2,500 anchors in one GT: the best of them lie in several blocks, equal ones among them."""
    corner = torch.rand(2500, 2, generator=torch.Generator().manual_seed(0)) * 10
    priors = torch.cat([corner, corner + 90], dim=1)
    scores = torch.rand(2500, 1, generator=torch.Generator().manual_seed(1)).mul(200).round() / 200
    mine = assigner(kind, score_topk=40, **(dict(pos_iou_thr=0.99) if kind == KINDS[0] else {}))
    pred, gt = predictions(priors, scores), instances([[0, 0, 100, 100]])
    expected = mine.assign(pred, *levels(kind, 2500), gt).gt_inds
    found = mine.assign(pred.to("cuda"), *levels(kind, 2500), gt.to("cuda")).gt_inds
    assert torch.equal(found.cpu(), expected) and (expected > 0).sum() >= 40


@pytest.mark.cuda
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_gts", [1, 7, 50])
def test_few_launches_and_no_further_synchronisation(kind, num_gts, simulated_cuda, monkeypatch):
    """Beyond mmdet's own, whatever the number of objects."""
    if simulated_cuda is None:
        pytest.skip("counted on the simulated device alone")
    plain = ATSSAssigner(topk=3) if kind == KINDS[1] else MaxIoUAssigner(**COMMON)
    pred = predictions(boxes(200, 0), torch.ones(200, 1)).to("cuda")
    gt, counted = instances(boxes(num_gts, 1)).to("cuda"), []
    for each in (plain, assigner(kind)):
        seen = InstanceData(priors=pred.priors) if each is plain else pred
        with simulated_cuda.count() as counts:
            each.assign(seen, *levels(kind, 200), gt)
        counted.append(counts)
    theirs, ours = counted
    assert ours.num_launches - theirs.num_launches == (8 if kind == KINDS[0] else 14)
    # One more where pairs are listed, one less where mmdet copies a number to the device.
    assert ours.num_syncs == theirs.num_syncs
    monkeypatch.setattr(blockwise_iou, "PAIRS", 100 * num_gts)
    with simulated_cuda.count() as counts:
        assigner(kind).assign(pred, *levels(kind, 200), gt)
    assert counts.num_syncs == ours.num_syncs  # in two blocks


def test_kernels_compile():
    keys = ["*i64", "*i64", "*fp32", "*fp32", "*fp32", "*i64", "*i64", "i32", *["fp32"] * 4]
    kernels = [
        *(
            ("score_kernel", keys, dict(CENTERED=centered, BLOCK=1024))
            for centered in (True, False)
        ),
        ("select_kernel", ["*i64", "*i64", "*i64", "i32", "i32"], dict(BLOCK=1024)),
        ("assign_kernel", ["*i64", "*i64", "*i64", "*i64", "i32"], dict(BLOCK=1024)),
    ]
    module = "misalign_det.models.task_modules.assigners.iou_cls_score_triton"
    kernels = [(module, *kernel) for kernel in kernels]
    assert compile_for_gpus(kernels, absent="fma.rn.f32") == 8
