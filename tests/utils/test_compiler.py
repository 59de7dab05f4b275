"""What the compiler leaves alone, and that nothing loads it."""

import subprocess
import sys

import torch

from misalign_det.utils.compiler import without_compiler


@without_compiler
def halved(x, divisor=2):
    """Halves."""
    return x / divisor, torch.compiler.is_compiling()


def test_arguments_results_and_name():
    out, compiling = halved(torch.ones(2), divisor=4)
    assert out.tolist() == [0.25, 0.25] and not compiling
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


def test_without_a_compiled_function_the_compiler_is_not_loaded():
    code = (
        "import sys, torch\n"
        "from misalign_det.utils.compiler import without_compiler\n"
        "before = 'torch._dynamo' in sys.modules\n"
        "without_compiler(lambda x: x)(torch.ones(1))\n"
        "print(before, 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = done.stdout.split()[-2:]
    assert before == after == "False"
