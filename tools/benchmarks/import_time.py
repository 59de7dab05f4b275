"""Time of ``import misalign_det`` beside that of ``import mmdet.models, mmcv.ops``.

    python tools/benchmarks/import_time.py

Each import runs in a process of its own, the two in turn, and the best of the repeats counts: any
other load makes an import slower, and nothing makes it faster.
"""

import argparse
import subprocess
import sys

PEER = "import mmdet.models, mmcv.ops"
OURS = "import misalign_det"
TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time the import")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="not read: run_all.sh gives it to all")
    return parser.parse_args(arguments)


def seconds(statement: str) -> float:
    """Time of a statement in a new process."""
    command = [sys.executable, "-W", "ignore", "-c", TIMED.format(statement)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(found.stdout.split()[-1])


def main() -> None:
    args = parse_args()
    times: dict[str, list[float]] = {PEER: [], OURS: []}
    for _ in range(args.repeats):
        for statement, found in times.items():
            found.append(seconds(statement))
    peer, ours = (min(found) for found in times.values())
    print("| statement | seconds | ratio |\n| --- | --- | --- |")
    print(f"| `{PEER}` | {peer:.2f} | 1 |\n| `{OURS}` | {ours:.2f} | {ours / peer:.2f} |")


if __name__ == "__main__":
    main()
