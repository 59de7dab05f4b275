"""A CUDA device that is not there: tensors that say ``cuda:0`` and compute on the CPU.

Numbers and control flow are real. Enforced are CUDA's rules: no operation on tensors of two
devices, no NumPy, autocast's lists for CUDA, mmcv's checks of contiguity and dtype, what
``torch.use_deterministic_algorithms`` refuses. Counted are kernel launches and host waits, with the
line of code that caused them::

    with SimulatedCuda() as device:
        head = head.to("cuda")
        with device.count() as counts:
            outs = head(feats)  # tensors .to("cuda")
        print(counts.num_launches, counts.num_waits)
        print(counts.table())

One call of an ATen operator counts as one launch, views and allocations as none. A real operator
may launch more than one kernel (a sort does): counts compare implementations, they are not what a
profiler prints. What it cannot check: time, memory, streams, races, cuDNN's own choices, and an
operator that is missing or differs on a GPU, unless it is named in ``rules.py`` or ``mmcv_ops.py``.
Numbers are the CPU's, with the arguments of convolutions and products rounded to TF32 on request.
Triton kernels run in its interpreter, one launch each.
"""

from .counts import Counts
from .device import SimulatedCuda
from .tensor import SimulatedTensor

__all__ = ["Counts", "SimulatedCuda", "SimulatedTensor"]
