"""Box voting as its definition says, box by box, in float64."""

import math

import torch


def iou(a, b):
    """IoU of two boxes, lists of four numbers."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union > 0 else 0.0


def voted_reference(
    bboxes, labels, all_bboxes, all_scores, all_labels, sigma=0.025, iou_threshold=0.01
):
    """What ``box_voting`` returns, in float64, ``(K, 4)``."""
    candidates = [*zip(all_bboxes.tolist(), all_scores.tolist(), all_labels.tolist())]
    out = []
    for box, label in zip(bboxes.tolist(), labels.tolist()):
        total, moments = 0.0, [0.0] * 4
        for other, score, other_label in candidates:
            overlap = iou(box, other)
            if other_label != label or overlap <= iou_threshold:
                continue
            weight = score * math.exp(-((1 - overlap) ** 2) / sigma)
            total += weight
            moments = [m + weight * x for m, x in zip(moments, other)]
        out.append([m / total for m in moments] if total > 0 else box)
    return torch.tensor(out, dtype=torch.float64).reshape(-1, 4)
