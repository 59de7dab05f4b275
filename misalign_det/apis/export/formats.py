"""Write and run exported detectors: ONNX files, and programs of ``torch.export``."""

import importlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from ...errors import InputError
from .detector_graph import fixed_padding

OPSETS = range(16, 21)  # GridSample is there since 16; the exporter goes to 20
DEFAULT_OPSET = 17
MAX_SIZE = 16384  # of an image, which torch.export wants to know

Outputs = tuple[Tensor, Tensor]


def required(module: str) -> ModuleType:
    """Import ``onnx`` or ``onnxruntime``.

    Args:
        module: its name.

    Raises:
        InputError: it is not installed; the message says how to.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f'{module} is not installed: pip install "misalign_det[export]"'
        ) from error


def write_onnx(
    graph: nn.Module,
    example: Tensor,
    path: str | Path,
    names: tuple[str, str],
    metadata: Mapping[str, str],
    opset: int = DEFAULT_OPSET,
) -> None:
    """Write an ONNX file whose batch and image size are free.

    By torch's TorchScript-based exporter: the newer one takes minutes for a head of free size.

    Args:
        graph: a ``DetectorGraph`` or ``NMSGraph`` in eval mode.
        example: images to trace with, ``(B, 3, H, W)``.
        path: file to write.
        names: of the two outputs.
        metadata: stored in the file.
        opset: version of ONNX's operators, one of ``OPSETS``.
    """
    onnx = required("onnx")
    free = {name: {0: "batch", 1: "number"} for name in names}
    if names[0] == "detections":
        free = {name: {0: "batch"} for name in names}
    with torch.no_grad(), fixed_padding(graph), _quiet(), _new_exporter_off() as options:
        torch.onnx.export(
            graph,
            (example,),
            str(path),
            opset_version=opset,
            input_names=["images"],
            output_names=list(names),
            dynamic_axes={"images": {0: "batch", 2: "height", 3: "width"}, **free},
            **options,
        )
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def load_onnx(path: str | Path) -> Callable[[Tensor], Outputs]:
    """A function that runs an ONNX file on the CPU.

    Args:
        path: from :func:`write_onnx`.

    Returns:
        Images ``(B, 3, H, W)`` -> the two outputs.
    """
    runtime = required("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Outputs:
        first, second = session.run(None, {"images": images.numpy()})
        return torch.from_numpy(first), torch.from_numpy(second)

    return run


def write_program(
    graph: nn.Module, example: Tensor, path: str | Path, metadata: Mapping[str, str]
) -> None:
    """Write a program of ``torch.export`` whose batch and image size are free.

    Args:
        graph: a ``DetectorGraph`` in eval mode.
        example: images to trace with, ``(B, 3, H, W)``, of at least two images.
        path: file to write, ``*.pt2``.
        metadata: stored in the file as ``metadata.json``.
    """
    dim = torch.export.Dim
    sizes = [dim(name, min=2, max=MAX_SIZE) for name in ("height", "width")]
    shapes = {"images": {0: dim("batch", min=1, max=1024), 2: sizes[0], 3: sizes[1]}}
    with torch.no_grad(), fixed_padding(graph), _quiet():
        program = torch.export.export(graph, (example,), dynamic_shapes=shapes, strict=False)
    text = json.dumps(dict(metadata))
    torch.export.save(program, str(path), extra_files={"metadata.json": text})


def load_program(path: str | Path) -> Callable[[Tensor], Outputs]:
    """A function that runs a program of ``torch.export``.

    Args:
        path: from :func:`write_program`.

    Returns:
        Images ``(B, 3, H, W)`` -> the two outputs.
    """
    module = torch.export.load(str(path)).module()

    def run(images: Tensor) -> Outputs:
        with torch.no_grad():
            first, second = module(images)
        return first, second

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of the exporters, whose result is compared with torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _new_exporter_off() -> Iterator[dict]:
    """The argument that chooses the TorchScript-based exporter; torch before 2.5 has no other."""
    names = torch.onnx.export.__code__.co_varnames
    yield {"dynamo": False} if "dynamo" in names else {}
