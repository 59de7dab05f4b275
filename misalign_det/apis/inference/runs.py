"""Run an inferencer over images and frames: detections in COCO's format, pictures and videos."""

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import mmcv
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import nn
from tqdm import tqdm

from ...errors import InputError
from .inferencer import Inferencer
from .sources import read_image

# Thresholds that suit pictures: about where precision and recall balance. A geometric mean, above
# all one in which the predicted IoU has most weight, is higher than a product or a probability.
PICTURE_SCORE, PICTURE_SCORE_OF_MEANS = 0.3, 0.65
FPS = 25.0  # of a video or webcam that states none


def picture_threshold(model: nn.Module) -> float:
    """The score from which on detections are drawn, if nothing else is said.

    Args:
        model: a detector.

    Returns:
        0.65 where the head's ``score_mode`` is ``'geometric_mean'``, else 0.3.
    """
    mode = getattr(getattr(model, "bbox_head", None), "score_mode", None)
    return PICTURE_SCORE_OF_MEANS if mode == "geometric_mean" else PICTURE_SCORE


class Detections:
    """Detections of some classes, as COCO's results.

    Args:
        classes: names in the order of the labels. Category ids are their numbers from 1.
        keep: the classes to keep; all by default.

    Attributes:
        results: dicts of ``image_id`` (from 1), ``file_name``, ``category_id``, ``category_name``,
            ``bbox`` (left, top, width, height in pixels) and ``score``; for a video also ``frame``
            (from 0).
        num_images: images and frames so far.
    """

    def __init__(self, classes: Sequence[str], keep: Sequence[str] | None = None) -> None:
        self.classes = tuple(classes)
        self.labels = {i for i, name in enumerate(classes) if keep is None or name in keep}
        self.results: list[dict] = []
        self.num_images = 0

    def add(self, file_name: str, sample: DetDataSample, frame: int | None = None) -> InstanceData:
        """Add the detections of an image or a frame.

        Args:
            file_name: of the image or the video.
            sample: with ``pred_instances``.
            frame: its number in the video.

        Returns:
            What was added: ``bboxes`` ``(D, 4)`` xyxy, ``labels`` and ``scores``, on the CPU.
        """
        found = sample.pred_instances.cpu()
        wanted = [label in self.labels for label in found.labels.tolist()]
        found = found[torch.tensor(wanted, dtype=torch.bool)]
        self.num_images += 1
        rows = zip(found.bboxes.tolist(), found.labels.tolist(), found.scores.tolist())
        for (left, top, right, bottom), label, score in rows:
            result = dict(
                image_id=self.num_images,
                file_name=file_name,
                category_id=label + 1,
                category_name=self.classes[label],
                bbox=[round(value, 3) for value in (left, top, right - left, bottom - top)],
                score=round(score, 6),
            )
            self.results.append(result if frame is None else dict(result, frame=frame))
        return found

    def save(self, path: str | Path) -> None:
        """Write the results as JSON.

        Args:
            path: file to write.
        """
        Path(path).write_text(json.dumps(self.results), encoding="utf-8")


def draw(
    inferencer: Inferencer, image: np.ndarray, found: InstanceData, score_thr: float
) -> np.ndarray:
    """The image with its detections, the highest score on top.

    Args:
        inferencer: its visualizer draws.
        image: ``(H, W, 3)``, uint8, BGR.
        found: ``bboxes`` ``(D, 4)`` xyxy in pixels, ``labels`` and ``scores``.
        score_thr: detections from this score on are drawn.

    Returns:
        ``(H, W, 3)``, uint8, BGR.
    """
    shown = found[found.scores >= score_thr]
    shown = shown[shown.scores.argsort(stable=True)]
    # Within the image: mmdet warns of other boxes, and leaves out some.
    height, width = image.shape[:2]
    shown.bboxes = shown.bboxes.clamp(min=0).minimum(
        shown.bboxes.new_tensor([width - 1, height - 1] * 2)
    )
    sample = DetDataSample(pred_instances=shown)
    rgb = np.ascontiguousarray(image[..., ::-1])
    inferencer.visualizer.add_datasample("image", rgb, sample, draw_gt=False, pred_score_thr=-1)
    return np.ascontiguousarray(inferencer.visualizer.get_image()[..., ::-1])


def detect_images(
    inferencer: Inferencer,
    paths: Sequence[str],
    detections: Detections,
    pictures: Sequence[str | Path] | None = None,
    batch_size: int = 1,
    score_thr: float = 0.3,
) -> list[str]:
    """Detect on image files.

    Args:
        inferencer: see :class:`Inferencer`.
        paths: of the images.
        detections: the results are added to it.
        pictures: file to write for each image; None for no pictures.
        batch_size: images per step.
        score_thr: detections from this score on are drawn.

    Returns:
        The paths that cannot be read as images, and those that the config's pipeline cannot use,
        with the reason; they are left out.
    """
    unusable = []
    with tqdm(total=len(paths), unit="image", desc="Images") as bar:
        for batch in _batches(range(len(paths)), batch_size):
            read = {i: read_image(paths[i]) for i in batch}
            images = {i: image for i, image in read.items() if image is not None}
            unusable += [paths[i] for i in batch if i not in images]
            # By path, so that the config's pipeline loads them.
            try:
                samples = _detected(inferencer, [paths[i] for i in images])
            except Exception:  # transforms raise errors of any type
                faults = {i: _pipeline_error(inferencer, paths[i]) for i in images}
                if not any(faults.values()):
                    raise  # of the detector
                unusable += [f"{paths[i]} ({fault})" for i, fault in faults.items() if fault]
                images = {i: image for i, image in images.items() if not faults[i]}
                samples = _detected(inferencer, [paths[i] for i in images])
            for i, sample in zip(images, samples):
                found = detections.add(paths[i], sample)
                if pictures is not None:
                    picture = draw(inferencer, images[i], found, score_thr)
                    mmcv.imwrite(picture, str(pictures[i]))
            bar.update(len(batch))
    return unusable


def detect_video(
    inferencer: Inferencer,
    source: str | int,
    detections: Detections,
    out_file: str | Path | None = None,
    batch_size: int = 1,
    score_thr: float = 0.3,
) -> int:
    """Detect on the frames of a video or a webcam.

    A webcam goes on until Ctrl-C, after which everything is written as at the end of a video.

    Args:
        inferencer: see :class:`Inferencer`.
        source: path of a video, or number of a webcam.
        detections: the results are added to it.
        out_file: MP4 to write, with the boxes; None for no video.
        batch_size: frames per step.
        score_thr: detections from this score on are drawn.

    Returns:
        Number of frames.

    Raises:
        InputError: the video cannot be written.
    """
    capture = cv2.VideoCapture(source)
    fps = capture.get(cv2.CAP_PROP_FPS) or FPS
    total = None if isinstance(source, int) else int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    name = f"webcam {source}" if isinstance(source, int) else source
    writer, count = None, 0
    try:
        with tqdm(total=total, unit="frame", desc=os.path.basename(name)) as bar:
            for frames in _batches(_frames(capture), batch_size):
                for frame, sample in zip(frames, _detected(inferencer, frames)):
                    found = detections.add(name, sample, count)
                    count += 1
                    if out_file is not None:
                        picture = draw(inferencer, frame, found, score_thr)
                        writer = writer or _writer(out_file, fps, picture)
                        writer.write(picture)
                bar.update(len(frames))
    except KeyboardInterrupt:
        if not isinstance(source, int):
            raise
    finally:
        capture.release()
        if writer is not None:
            writer.release()
    return count


def _detected(inferencer: Inferencer, inputs: list) -> list[DetDataSample]:
    if not inputs:
        return []
    found = inferencer(inputs, batch_size=len(inputs), return_datasamples=True)
    return found["predictions"]


def _pipeline_error(inferencer: Inferencer, path: str) -> str | None:
    """Why the config's pipeline cannot use an image, such as one that is too narrow to resize."""
    try:
        inferencer.pipeline(path)
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


def _frames(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    while True:
        there, frame = capture.read()
        if not there:
            return
        yield frame


def _batches(items: Iterable, size: int) -> Iterator[list]:
    remaining = iter(items)
    while batch := list(itertools.islice(remaining, size)):
        yield batch


def _writer(path: str | Path, fps: float, picture: np.ndarray) -> cv2.VideoWriter:
    size = (picture.shape[1], picture.shape[0])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    if not writer.isOpened():
        raise InputError(
            f"the video {path} cannot be written ({size[0]}x{size[1]}, {fps:g} frames per second). "
            "Choose another folder, or leave videos out with --no-pictures."
        )
    return writer
