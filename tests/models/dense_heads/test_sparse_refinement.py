"""TripleHead.sparse_refinement: boxes refined only where they can be detected."""

import pytest
import torch
from helpers.dense_head_cases import METAS, features, make_head
from mmdet.models.utils import filter_scores_and_topk

from misalign_det.models.dense_heads.sparse_refinement import detectable, seen_by_output


def trained(head):
    """Weights that give all sorts of probabilities and refinements."""
    torch.manual_seed(3)
    torch.nn.init.normal_(head.conv_cls.weight, std=0.3)
    torch.nn.init.constant_(head.conv_cls.bias, -3)
    torch.nn.init.normal_(head.conv_reg.weight, std=0.1)
    return head.eval()


@torch.no_grad()
@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("test_cfg", [{}, dict(score_thr=0.1), dict(nms_pre=7)], ids=str)
@pytest.mark.parametrize("options", [{}, dict(refine_mode="add"), dict(rfa_position="first")])
def test_same_detections_and_fewer_refined_boxes(size, test_cfg, options):
    head = trained(make_head(**options))
    head.test_cfg.update({"nms_pre": -1, "max_per_img": 1000, **test_cfg})
    feats = features(2, size)
    everywhere = head(feats)
    head.sparse_refinement = True
    sparse = head(feats)
    expected, found = (
        head.predict_by_feat(*outs, batch_img_metas=METAS) for outs in (everywhere, sparse)
    )
    for mine, theirs in zip(found, expected):
        assert len(theirs) > 0
        for key in ("bboxes", "scores", "labels"):
            torch.testing.assert_close(mine[key], theirs[key], rtol=1e-4, atol=1e-3)
    share = torch.stack(
        [(mine == coarse).float().mean() for mine, coarse in zip(sparse[1], sparse[3])]
    )
    assert (share[0] > 0.1) == bool(test_cfg)


@torch.no_grad()
def test_nothing_above_the_threshold_refines_nothing():
    head = make_head(sparse_refinement=True).eval()
    head.test_cfg.update(score_thr=0.99)
    _, refined, _, coarse = head(features(1))
    for mine, theirs in zip(refined, coarse):
        assert torch.equal(mine, theirs)


def test_training_refines_everywhere():
    head, feats = trained(make_head(sparse_refinement=True)).train(), features(1)
    head.test_cfg.update(score_thr=0.99)
    _, refined, _, coarse = head(feats)
    assert not any(torch.equal(mine, theirs) for mine, theirs in zip(refined, coarse))


@pytest.mark.parametrize("score_thr, nms_pre", [(0.5, 10), (0.2, 40), (0.0, -1), (0.9999, 5)])
def test_what_mmdet_keeps_is_detectable(score_thr, nms_pre):
    torch.manual_seed(0)
    probabilities = torch.rand(2, 3, 6, 5)
    where = detectable(probabilities, dict(score_thr=score_thr, nms_pre=nms_pre))
    for image, mine in zip(probabilities, where):
        rows = image.permute(1, 2, 0).reshape(-1, 3)
        limit = nms_pre if nms_pre > 0 else len(rows) * 3
        kept = filter_scores_and_topk(rows, score_thr, limit)[2]
        assert mine.flatten()[kept].all()
        assert mine.sum() <= limit


@torch.no_grad()
def test_training_without_gradients_refines_everywhere():
    """As where losses of a validation set are computed."""
    head, feats = trained(make_head(sparse_refinement=True)).train(), features(1)
    head.test_cfg.update(score_thr=0.99)
    _, refined, _, coarse = head(feats)
    assert not any(torch.equal(mine, theirs) for mine, theirs in zip(refined, coarse))


def test_inference_with_gradients_refines_everywhere():
    head, feats = trained(make_head(sparse_refinement=True)), features(1)
    head.test_cfg.update(score_thr=0.99)
    _, refined, _, coarse = head(feats)
    assert not any(torch.equal(mine, theirs) for mine, theirs in zip(refined, coarse))


@torch.no_grad()
@pytest.mark.parametrize("test_cfg", [None, {}, dict(score_thr=None, nms_pre=None)])
def test_without_a_test_cfg_nothing_is_left_out(test_cfg):
    head, feats = trained(make_head()), features(1)
    head.test_cfg = test_cfg
    everywhere, head.sparse_refinement = head(feats), True
    for mine, theirs in zip(head(feats)[1], everywhere[1]):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-4)


def test_locations_at_the_threshold_by_hand():
    probabilities = torch.tensor([[0.1, 0.2, 0.3], [0.2, 0.05, 0.3]]).view(1, 2, 1, 3)

    def places(**test_cfg):
        return detectable(probabilities, test_cfg).flatten().tolist()

    assert places() == places(score_thr=0.0) == [True, True, True]
    assert places(score_thr=0.25) == [False, False, True]
    assert places(nms_pre=1) == [False, False, True]
    assert places(nms_pre=2) == [True, True, True]  # equal ones too
    assert places(nms_pre=3) == places(nms_pre=-1) == places(nms_pre=0) == [True, True, True]
    # What passes only by the rounding of a root is refined as well.
    assert places(score_thr=0.2000001) == [True, True, True]
    assert places(score_thr=0.20001) == [False, False, True]
    assert detectable(torch.zeros(1, 1, 1, 2), {}).any().item() is False


def test_locations_that_the_output_convolution_sees():
    where = torch.zeros(1, 1, 4, 5, dtype=torch.bool)
    where[0, 0, 0, 4] = True
    seen = seen_by_output(where)
    expected = torch.zeros_like(where)
    expected[0, 0, :2, 3:] = True
    assert torch.equal(seen, expected) and seen.dtype == torch.bool
