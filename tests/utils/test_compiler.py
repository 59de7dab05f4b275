"""What the compiler leaves alone, and that nothing loads it."""

import subprocess
import sys
from types import SimpleNamespace

import torch

from misalign_det.utils.compiler import compiling, without_compiler


@without_compiler
def halved(x, divisor=2):
    """Halves."""
    return x / divisor, compiling()


def test_arguments_results_and_name():
    out, traced = halved(torch.ones(2), divisor=4)
    assert out.tolist() == [0.25, 0.25] and not traced
    assert (halved.__name__, halved.__doc__) == ("halved", "Halves.")


def test_it_runs_outside_a_compiled_function():
    graphs = []

    def backend(graph, example_inputs):
        graphs.append([node.target for node in graph.graph.nodes if node.op == "call_function"])
        return graph.forward

    @torch.compile(backend=backend)
    def step(x):
        y, compiling = halved(x + 1)
        return y * 3, compiling

    for _ in range(2):
        out, compiling = step(torch.ones(2))
        assert out.tolist() == [3, 3] and not compiling
    assert len(graphs) == 2 and not any("div" in str(node) for graph in graphs for node in graph)


def test_whether_it_is_compiling():
    @torch.compile(backend=lambda graph, example_inputs: graph.forward)
    def step(x):
        return x + 1 if compiling() else x - 1

    assert step(torch.ones(2)).tolist() == [2, 2] and not compiling()


def test_torch_older_than_is_compiling(monkeypatch):
    monkeypatch.delattr(torch.compiler, "is_compiling", raising=False)
    for loaded, expected in ((None, False), ({"is_compiling": lambda: True}, True)):
        monkeypatch.setitem(sys.modules, "torch._dynamo", loaded and SimpleNamespace(**loaded))
        assert compiling() is expected
    monkeypatch.delitem(sys.modules, "torch._dynamo")
    assert not compiling()


def test_without_a_compiled_function_the_compiler_is_not_loaded():
    code = (
        "import sys, torch\n"
        "from misalign_det.utils.compiler import compiling, without_compiler\n"
        "before = 'torch._dynamo' in sys.modules\n"
        "without_compiler(lambda x: x)(torch.ones(1))\n"
        "assert not compiling()\n"
        "print(before, 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = done.stdout.split()[-2:]
    assert before == after == "False"
