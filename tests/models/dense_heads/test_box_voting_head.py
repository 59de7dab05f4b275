"""Box voting in heads: off it changes nothing, on it moves the boxes that any NMS keeps."""

import copy
import io
import pickle

import pytest
import torch
from helpers.every_head import HEADS, features, make_head
from helpers.stock_heads import META, NAMES, build, detections, head_config, levels, spread
from helpers.voting_reference import voted_reference
from mmdet.models.dense_heads import ATSSHead, FCOSHead, YOLOXHead
from mmdet.registry import MODELS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from misalign_det.analysis.nms_regret import boxes_before_nms
from misalign_det.models import BoxVotingHead, BoxVotingMixin
from misalign_det.models.dense_heads.box_voting_head import configured_head_class

VOTING = dict(sigma=0.05, iou_threshold=0.02)
NMS = [
    dict(type="nms", iou_threshold=0.6),
    dict(type="nms", iou_threshold=0.6, class_agnostic=True),
    dict(type="soft_nms", iou_threshold=0.6),
    dict(type="CLBalancedNMS", iou_threshold=0.6, output_score="selection"),
]


def voting_pair(name, **test_cfg):
    """mmdet's head, and the same with voting, of the same weights."""
    config = head_config(name, **test_cfg)
    plain = build(config)
    voting = build({**config, "type": "BoxVotingHead", "head_type": config["type"]})
    voting.load_state_dict(plain.state_dict())
    return plain, voting


def same(first, second, *keys):
    return all(
        len(a) == len(b) and all(torch.equal(a[key], b[key]) for key in keys)
        for a, b in zip(first, second)
    )


def check_voted(plain, voting, options):
    """Scores, labels and the number of boxes are those of the plain head; boxes by definition."""
    before, after = detections(plain), detections(voting)
    assert same(before, after, "scores", "labels")
    with torch.no_grad():
        candidates = boxes_before_nms(plain, plain(levels(plain)), [META, META])
    for kept, voted, rest in zip(before, after, candidates):
        expected = voted_reference(
            kept.bboxes, kept.labels, rest.bboxes, rest.scores, rest.labels, **options
        )
        torch.testing.assert_close(voted.bboxes.double(), expected, rtol=1e-4, atol=2e-3)
        moved = (voted.bboxes - kept.bboxes).abs().max().item()
        assert len(kept) > 5 and moved > 0.1


@pytest.mark.parametrize("name", NAMES)
class TestHeadsOfMMDet:
    def test_off_is_bit_equal(self, name):
        plain, voting = voting_pair(name)
        assert isinstance(voting, type(plain)) and isinstance(voting, BoxVotingHead)
        assert list(voting.state_dict()) == list(plain.state_dict())
        assert same(detections(plain), detections(voting), "bboxes", "scores", "labels")
        voting.test_cfg.box_voting = None
        assert same(detections(plain), detections(voting), "bboxes", "scores", "labels")

    def test_on_equals_the_definition(self, name):
        plain, voting = voting_pair(name)
        voting.test_cfg.box_voting = ConfigDict(VOTING)
        check_voted(plain, voting, VOTING)

    def test_nothing_found(self, name):
        _, voting = voting_pair(name, box_voting=VOTING)
        voting.test_cfg.score_thr = 1.0
        for found in detections(voting):
            assert found.bboxes.shape == (0, 4) and len(found.scores) == len(found.labels) == 0

    def test_boxes_before_nms_are_not_voted(self, name):
        plain, voting = voting_pair(name)
        voting.test_cfg.box_voting = ConfigDict(VOTING)
        with torch.no_grad():
            first, second = (
                boxes_before_nms(head, head(levels(head)), [META, META]) for head in (plain, voting)
            )
        assert same(first, second, "bboxes", "scores", "labels")


@pytest.mark.cuda
def test_no_more_host_device_synchronisations(simulated_cuda):
    """Not even where small boxes are left out, which needs one."""
    if simulated_cuda is None:
        pytest.skip("counted on the simulated device alone")
    _, head = voting_pair("ATSS")
    head.to("cuda")
    counted = []
    for options in (None, VOTING):
        head.test_cfg.box_voting = options
        detections(head)
        with simulated_cuda.count() as counts:
            detections(head)
        counted.append(counts.num_syncs)
    assert counted[0] == counted[1] > 0


@pytest.mark.parametrize("nms", NMS, ids=lambda nms: "-".join(map(str, nms.values())))
def test_any_nms(nms):
    plain, voting = voting_pair("ATSS", nms=nms)
    voting.test_cfg.box_voting = ConfigDict(VOTING)
    check_voted(plain, voting, VOTING)


def test_small_boxes_neither_count_nor_vote():
    plain, voting = voting_pair("ATSS", min_bbox_size=25)
    voting.test_cfg.box_voting = ConfigDict(VOTING)
    check_voted(plain, voting, VOTING)
    everything = detections(voting_pair("ATSS")[0], with_nms=False)
    assert sum(map(len, detections(plain, with_nms=False))) < sum(map(len, everything))


def test_defaults_of_the_options():
    plain, voting = voting_pair("FCOS", box_voting={})
    check_voted(plain, voting, dict(sigma=0.025, iou_threshold=0.01))


def test_without_nms_there_is_no_vote():
    plain, voting = voting_pair("GFL", box_voting=VOTING)
    keys = "bboxes", "scores", "labels"
    assert same(detections(plain, with_nms=False), detections(voting, with_nms=False), *keys)


def test_box_type_is_kept():
    head = make_head("LossAwareFCOSHead")
    boxes = torch.tensor([[0.0, 0, 40, 40], [2, 0, 42, 40], [90, 0, 99, 9]])
    results = InstanceData(
        bboxes=HorizontalBoxes(boxes), scores=torch.tensor([0.9, 0.6, 0.7]), labels=torch.zeros(3)
    )
    cfg = ConfigDict(head.test_cfg, box_voting=dict(sigma=0.025))
    meta = dict(scale_factor=(2.0, 2.0))
    found = head._bbox_post_process(results, cfg, rescale=True, img_meta=meta)
    assert isinstance(found.bboxes, HorizontalBoxes)
    expected = torch.tensor([[0.3168, 0, 20.3168, 20], [45, 0, 49.5, 4.5]])
    torch.testing.assert_close(found.bboxes.tensor, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.parametrize("name", HEADS)
def test_heads_of_this_package(name, device):
    """Off: what mmdet's method gives without the mixin. On: other boxes, all else equal."""
    head = spread(make_head(name)).to(device)
    metas = [dict(img_shape=(256, 256), scale_factor=(2.0, 2.0))]

    @torch.no_grad()
    def found():
        outputs = head(features(device))
        return head.predict_by_feat(*outputs, batch_img_metas=metas, rescale=True)

    off = found()
    head.test_cfg.box_voting = ConfigDict(VOTING)
    on = found()
    assert same(off, on, "scores", "labels")
    moved = (on[0].bboxes - off[0].bboxes).abs().max().item()
    assert moved > 0.1
    without = BoxVotingMixin._bbox_post_process
    try:
        del BoxVotingMixin._bbox_post_process
        plain = found()
    finally:
        BoxVotingMixin._bbox_post_process = without
    assert same(off, plain, "bboxes", "scores", "labels")


def test_copies_and_pickles():
    _, voting = voting_pair("ATSS", box_voting=VOTING)
    file = io.BytesIO()
    torch.save(voting, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for other in (copy.deepcopy(voting), copy.copy(voting), pickle.loads(pickle.dumps(voting)),
                  loaded):  # fmt: skip
        assert type(other) is type(voting) and isinstance(other, ATSSHead)
        assert same(detections(voting), detections(other), "bboxes", "scores", "labels")
    assert type(voting).__name__ == "BoxVotingATSSHead"


def test_a_head_of_your_own():
    class Mine(BoxVotingMixin, FCOSHead):
        pass

    config = head_config("FCOS", box_voting=VOTING)
    mine = build({**config, "type": Mine})
    plain = build({**config, "type": FCOSHead})
    mine.load_state_dict(plain.state_dict())
    check_voted(plain, mine, VOTING)


def test_head_type_may_be_a_class_or_scoped():
    for kind in (ATSSHead, "mmdet.ATSSHead", "ATSSHead"):
        head = build({**head_config("ATSS"), "type": BoxVotingHead, "head_type": kind})
        assert type(head).head_class is ATSSHead
        assert configured_head_class(dict(type="BoxVotingHead", head_type=kind)) is ATSSHead
    assert configured_head_class(dict(type="YOLOXHead")) is YOLOXHead


@pytest.mark.parametrize(
    ("head_type", "said"),
    [
        (None, "head_type must be the name of a registered dense head, not None"),
        ("ATSHead", "registered dense head, not 'ATSHead'"),
        ("ResNet", "ResNet cannot vote"),
        ("RPNHead", "RPNHead cannot vote"),
        ("GARetinaHead", "GARetinaHead cannot vote"),
        ("CornerHead", "CornerHead cannot vote"),
        ("RTMDetInsHead", "RTMDetInsHead cannot vote"),
        ("YOLACTHead", "YOLACTHead cannot vote"),
        ("MaskFormerHead", "MaskFormerHead cannot vote"),
        ("Shared2FCBBoxHead", "Shared2FCBBoxHead cannot vote"),
        ("TripleHead", "TripleHead reads test_cfg.box_voting by itself. Write type='TripleHead'"),
    ],
)
def test_heads_that_cannot(head_type, said):
    with pytest.raises(ValueError, match=said):
        MODELS.build(dict(type="BoxVotingHead", head_type=head_type, num_classes=3))


def test_a_head_that_calls_the_one_it_derives_from():
    class Wrapped(ATSSHead):
        def _predict_by_feat_single(self, *args, **kwargs):
            return super()._predict_by_feat_single(*args, **kwargs)

    class Silent(ATSSHead):
        def _predict_by_feat_single(self, *args, **kwargs):
            return None

    config = dict(head_config("ATSS"), type="BoxVotingHead")
    assert isinstance(MODELS.build(dict(config, head_type=Wrapped)), Wrapped)
    for kind in (Silent, dict(type="ATSSHead")):
        with pytest.raises(ValueError, match="Silent cannot vote|head_type must be the name"):
            MODELS.build(dict(config, head_type=kind))


def test_wrong_options_are_found_when_the_head_is_built():
    for changes in (dict(type="BoxVotingHead", head_type="ATSSHead"), dict(type="DCATSSHead")):
        config = {**head_config("ATSS", box_voting=dict(sigm=0.1)), **changes}
        with pytest.raises(ValueError, match="box_voting has no sigm"):
            build(config)
    config = {**head_config("PAA", box_voting=VOTING), "score_voting": True}
    with pytest.raises(ValueError, match="PAAHead votes by itself .*score_voting=False"):
        build({**config, "type": "BoxVotingHead", "head_type": "PAAHead"})
