"""A simulated CUDA device: tensors that report ``cuda:0`` and compute on the CPU.

Values and control flow are real. CUDA's rules are enforced: no operation on tensors of two
devices, no NumPy, autocast's lists for CUDA, mmcv's checks of contiguity and dtype, what
``torch.use_deterministic_algorithms`` refuses. Kernel launches and synchronisations are counted,
with the line of code that caused them::

    with SimulatedCuda() as device:
        head = head.to("cuda")
        with device.count() as counts:
            outs = head(feats)  # tensors .to("cuda")
        print(counts.num_launches, counts.num_syncs)
        print(counts.table())

One call of an ATen operator counts as one launch, views and allocations as none. A real operator
may launch more than one kernel (a sort does), so counts serve to compare implementations; a
profiler may print others. Not checked: time, memory, streams, races, cuDNN's choices, and
operators that are missing or differ on a GPU, unless ``rules.py`` or ``mmcv_ops.py`` names them.
Values are the CPU's; the arguments of convolutions and products can be rounded to TF32. Triton
kernels run in Triton's interpreter, with one launch each.
"""

from .counts import Counts
from .device import SimulatedCuda
from .tensor import SimulatedTensor

__all__ = ["Counts", "SimulatedCuda", "SimulatedTensor"]
