"""Class probabilities for the assigner of an anchor head; dc_heads.py says by which way."""

from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from torch import Tensor

if TYPE_CHECKING:  # what the mixin is combined with
    from mmdet.models.dense_heads import AnchorHead as _AnchorHead
else:
    _AnchorHead = object


class ScoreAwareAssignMixin(_AnchorHead):
    """Base class ahead of one of mmdet's anchor heads: its assigner can read class probabilities.

    An assigner with ``needs_scores = True`` finds in its attribute ``scores``, while it assigns,
    a function of anchor indices and labels, both ``(E,)``, that gives ``(E,)`` probabilities.
    """

    def loss_by_feat(self, cls_scores: list[Tensor], *args: Any, **kwargs: Any) -> dict:
        """mmdet's losses.

        Args:
            cls_scores: class logits ``(N, A * C, H, W)`` per level.
            *args, **kwargs: the head's other outputs, ground truths and meta information.
        """
        if not getattr(self.assigner, "needs_scores", False):
            return super().loss_by_feat(cls_scores, *args, **kwargs)
        logits = torch.cat(
            [
                level.detach().permute(0, 2, 3, 1).reshape(len(level), -1, self.cls_out_channels)
                for level in cls_scores
            ],
            dim=1,
        )
        call = signature(super().loss_by_feat).bind(cls_scores, *args, **kwargs)
        metas = call.arguments["batch_img_metas"]
        call.arguments["batch_img_metas"] = [
            dict(meta, cls_logits=image) for meta, image in zip(metas, logits)
        ]
        try:
            return super().loss_by_feat(*call.args, **call.kwargs)
        finally:
            self.assigner.scores = None

    def _get_targets_single(
        self, flat_anchors: Tensor, valid_flags: Tensor, *args: Any, **kwargs: Any
    ) -> tuple:
        img_meta = next(a for a in (*args, *kwargs.values()) if isinstance(a, dict))
        logits = img_meta.get("cls_logits")
        if logits is not None:
            inside = anchor_inside_flags(
                flat_anchors,
                valid_flags,
                img_meta["img_shape"][:2],
                self.train_cfg["allowed_border"],
            )
            self.assigner.scores = partial(self._probability, logits, inside)
        return super()._get_targets_single(flat_anchors, valid_flags, *args, **kwargs)

    def _probability(
        self, logits: Tensor, inside: Tensor, prior_inds: Tensor, labels: Tensor
    ) -> Tensor:
        """Probability of a class at an anchor, ``(E,)``.

        Args:
            logits: of all anchors of the image, ``(P, C)``.
            inside: which of them the assigner is given, ``(P,)`` bool.
            prior_inds, labels: the assigner's anchor and the class of each pair, ``(E,)``, on any
                device: with ``gpu_assign_thr`` mmdet assigns on the CPU.

        Returns:
            In float32, on the device of ``prior_inds``.
        """
        # The anchor at which so many have been counted; ``nonzero`` would synchronise host and GPU.
        rows = torch.searchsorted(inside.cumsum(0), prior_inds.to(inside.device) + 1)
        labels = labels.to(logits.device)
        if self.use_sigmoid_cls:
            found = logits[rows, labels].float().sigmoid()
        else:
            found = logits[rows].float().softmax(dim=-1).gather(1, labels[:, None]).squeeze(1)
        return found.to(prior_inds.device)
