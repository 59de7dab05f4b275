"""Compare ways to run a detector faster with the plain one, in the same run.

    python tools/benchmarks/variants.py
    python tools/benchmarks/variants.py jla_triplehead_r50_fpn_1x_coco --img-shape 800 1333 \\
        --batch-size 1

The variants: channels-last weights, bfloat16, the head under torch.compile, and group norm and
ReLU as one compiled function. Compilation takes a minute, which is not counted. The last lines
give the share of each level in the head's time, and what processing all levels at once could save
at most. Kernel launches and synchronisations of compiled variants are counted only on a GPU.
Without one, the others are counted on the simulated device, with images of a quarter of the height
and width (at least 64 pixels).
"""

import argparse
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial

from torch import Tensor, nn

import misalign_det  # noqa: F401  (first: it checks the environment)

# isort: split
import torch
import torch.nn.functional as F
from launch_counts import HEADER, Cost, add_no_counts, count_calls, footnote
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.logging import MMLogger

from misalign_det.apis.cli import add_renamed_option
from misalign_det.apis.config_lookup import resolve_config
from misalign_det.engine.hooks.channels_last_hook import to_channels_last
from misalign_det.utils.benchmark import machine, median, spread, time_in_turn


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Time variants of one detector")
    parser.add_argument("config", nargs="?", default="jla_triplehead_r18_fpn_12e_bccd")
    parser.add_argument("--img-shape", type=int, nargs=2, default=[240, 320], metavar=("H", "W"))
    parser.add_argument("--batch-size", type=int, default=8, help="images per training step")
    parser.add_argument("--num-objects", type=int, default=13)
    parser.add_argument(
        "--modes", nargs="+", choices=["train", "infer"], default=["train", "infer"]
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    add_no_counts(parser)
    add_renamed_option(parser, "--image", "--img-shape")
    add_renamed_option(parser, "--batch", "--batch-size")
    add_renamed_option(parser, "--objects", "--num-objects")
    return parser.parse_args(arguments)


def compiled_head(detector: nn.Module) -> nn.Module:
    """The head's forward pass under torch.compile."""
    detector.bbox_head.forward = torch.compile(detector.bbox_head.forward, dynamic=False)
    return detector


class GroupNormReLU(nn.Module):
    """Both in one compiled function."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm
        self.fused = torch.compile(
            lambda x, w, b: F.relu(F.group_norm(x, norm.num_groups, w, b, norm.eps)), dynamic=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fused(x, self.norm.weight, self.norm.bias)


def fused_norm(detector: nn.Module) -> nn.Module:
    """Group norm and ReLU of every ConvModule of the head as one."""
    for module in detector.bbox_head.modules():
        if isinstance(module, ConvModule) and module.with_norm and module.with_activation:
            setattr(module, module.norm_name, GroupNormReLU(module.norm))
            module.with_activation = False
    return detector


def unchanged(detector: nn.Module) -> nn.Module:
    """The detector as it is."""
    return detector


VARIANTS = {
    "plain": (unchanged, False),
    "channels last": (to_channels_last, False),
    "bfloat16": (unchanged, True),
    "bfloat16, channels last": (to_channels_last, True),
    "head compiled": (compiled_head, False),
    "GN and ReLU compiled": (fused_norm, False),
}
COMPILED = ("head compiled", "GN and ReLU compiled")


def build(config: str, device: str) -> nn.Module:
    """An untrained detector, the same each time."""
    model = Config.fromfile(resolve_config(config)).model
    model.backbone.init_cfg = None
    torch.manual_seed(0)
    detector = MODELS.build(model)
    detector.init_weights()
    return detector.to(device)


def train(
    detector: nn.Module, optimizer: torch.optim.Optimizer, packed: dict, device: str, half: bool
) -> None:
    """Losses, gradients, optimizer."""
    detector.train()
    with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=half):
        losses = detector(**detector.data_preprocessor(packed, True), mode="loss")
        total, _ = detector.parse_losses(losses)
    optimizer.zero_grad()
    total.backward()
    optimizer.step()


@torch.no_grad()
def infer(detector: nn.Module, packed: dict, device: str, half: bool) -> tuple:
    """The network only: the following steps are the same in all variants."""
    detector.eval()
    with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=half):
        return detector(detector.data_preprocessor(packed, False)["inputs"])


def head_of_level(head: nn.Module, level: int) -> nn.Module:
    """A copy of the head with only this level."""
    head = deepcopy(head)
    head.strides = [head.strides[level]]
    for name in ("scales", "coarse_scales"):
        if hasattr(head, name):
            setattr(head, name, getattr(head, name)[level : level + 1])
    head.prior_generator = type(head.prior_generator)(head.strides)
    return head


@torch.no_grad()
def level_shares(
    detector: nn.Module, packed: dict, repeats: int, device: str
) -> tuple[list[float], float]:
    """Where the head's forward pass spends its time.

    Returns:
        Share of each level, from the finest; and the share that one map with all levels except the
        finest side by side would save, without the masks and the group norm per level it needs.
    """
    detector.eval()
    head = detector.bbox_head
    feats = list(detector.extract_feat(detector.data_preprocessor(packed, False)["inputs"]))
    second, third = feats[1:3]
    one_map = second.new_zeros(*second.shape[:3], second.shape[3] + 1 + third.shape[3])
    levels = [*enumerate(feats), (1, one_map)]
    passes = [partial(head_of_level(head, level), (feat,)) for level, feat in levels]
    *taken, joined = map(median, time_in_turn(passes, repeats, device))
    whole = sum(taken)
    return [part / whole for part in taken], (sum(taken[1:]) - joined) / whole


def pack(args: argparse.Namespace, mode: str, image: Sequence[int], device: str) -> dict:
    """Random images for a mode."""
    batch = args.batch_size if mode == "train" else 1
    return demo_mm_inputs(
        batch,
        image_shapes=[(3, *image)] * batch,
        num_items=[args.num_objects] * batch,
        num_classes=3,
        device=device,
    )


def steps(
    args: argparse.Namespace, mode: str, image: Sequence[int], names: Sequence[str], device: str
) -> dict[str, Callable]:
    """Functions that take one step each, by the variant's name."""
    packed, functions = pack(args, mode, image, device), {}
    for name in names:
        change, half = VARIANTS[name]
        detector = change(build(args.config, device))
        if mode == "train":
            # On CUDA all parameters take the step at once, which is what torch chooses there.
            together = True if device.startswith("cuda") else None
            optimizer = torch.optim.SGD(
                detector.parameters(), lr=1e-4, momentum=0.9, foreach=together
            )
            functions[name] = partial(train, detector, optimizer, packed, device, half)
        else:
            functions[name] = partial(infer, detector, packed, device, half)
    return functions


def counted(
    args: argparse.Namespace, mode: str, functions: dict[str, Callable]
) -> tuple[dict[str, Cost], str]:
    """Launches and synchronisations per variant, and the last line of the table."""
    if args.no_counts:
        return {}, footnote(False)
    if torch.cuda.is_available():
        make = partial(steps, args, mode, args.img_shape, args.variants)
        return count_calls(make, args.device, functions), footnote()
    names = [name for name in args.variants if name not in COMPILED]
    small = [max(64, side // 4) for side in args.img_shape]
    costs = count_calls(partial(steps, args, mode, small, names))
    return costs, footnote(simulated_on=f"images of {small[1]}x{small[0]}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table per mode."""
    args = parse_args(arguments)
    torch.set_num_threads(args.threads)
    register_all_modules()
    MMLogger.get_instance("benchmark", log_level="ERROR")
    torch._dynamo.config.recompile_limit = 64  # one function is compiled for all levels and layers
    print(machine(args.device))
    for mode in args.modes:
        functions = steps(args, mode, args.img_shape, args.variants, args.device)
        times = dict(zip(functions, time_in_turn(functions.values(), args.repeats, args.device)))
        costs, note = counted(args, mode, functions)
        first = median(next(iter(times.values())))
        what = "training step" if mode == "train" else "network at inference"
        batch = args.batch_size if mode == "train" else 1
        print(
            f"\n{args.config}, {what}, batch {batch}\n{'variant':<24} {'time':>10} {'spread':>7} "
            f"{'/ ' + next(iter(times)):>8} {HEADER}"
        )
        for name, taken in times.items():
            print(
                f"{name:<24} {1e3 * median(taken):>7.0f} ms {100 * spread(taken):>5.0f} % "
                f"{median(taken) / first:>8.2f} {costs.get(name, Cost())}",
                flush=True,
            )
        print(note)
    shares, saved = level_shares(
        build(args.config, args.device), pack(args, args.modes[-1], args.img_shape, args.device),
        args.repeats, args.device,
    )  # fmt: skip
    print("\nthe head's time by level: " + ", ".join(f"{100 * share:.0f} %" for share in shares))
    print(f"saved by one map for all but the finest: at most {100 * saved:.0f} % of the head")


if __name__ == "__main__":
    main()
