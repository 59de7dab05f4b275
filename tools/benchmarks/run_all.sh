#!/usr/bin/env bash
# Print the tables of all benchmarks, one after the other, with the device's name.
#
#   bash tools/benchmarks/run_all.sh
#   bash tools/benchmarks/run_all.sh --device cuda
#   bash tools/benchmarks/run_all.sh --refinement CONFIG CHECKPOINT    also for a trained TripleHead
#
#   --quick        few repeats of few cases, to see whether all of them run, and the launches
#   --only NAME    only the tables of one benchmark, such as nms
#   --dry-run      print the commands
#
# It uses the python of the active environment. On a CPU it takes hours without --quick. Benchmarks
# that fail are listed at the end, and the exit status is then 1.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
device=cpu quick='' dry='' only='' refinement=() failed=()

usage() { sed -n '2,/^set/{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }
wrong() { printf 'run_all.sh: error: %s\n' "$1" >&2; usage >&2; exit 2; }

while [ $# -gt 0 ]; do
    case $1 in
        --device) [ $# -ge 2 ] || wrong "$1 needs a device"; device=$2; shift 2 ;;
        --only) [ $# -ge 2 ] || wrong "$1 needs a name"; only=$2; shift 2 ;;
        --refinement)
            [ $# -ge 3 ] || wrong "$1 needs a config and a checkpoint"
            refinement=("$2" "$3"); shift 3 ;;
        --quick) quick=yes; shift ;;
        --dry-run) dry=yes; shift ;;
        -h | --help) usage; exit 0 ;;
        *) wrong "unknown argument $1" ;;
    esac
done
[ -z "$only" ] || [ -f "$here/$only.py" ] || wrong "no benchmark is named $only"

# Warnings of other packages and of the profiler would appear between the rows of the tables.
export PYTHONWARNINGS=ignore TORCH_CPP_LOG_LEVEL=${TORCH_CPP_LOG_LEVEL:-ERROR}
# Idle OpenMP threads sleep: with other load, threads that spin slow every step down.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}

# table "heading" benchmark arguments...
table() {
    local heading=$1 name=$2
    shift 2
    [ -z "$only" ] || [ "$only" = "$name" ] || return 0
    local command=(python "$here/$name.py" "$@" --device "$device")
    printf '\n## %s\n\n' "$heading"
    if [ -n "$dry" ]; then
        printf '%q ' "${command[@]}"
        echo
        return 0
    fi
    "${command[@]}" </dev/null || failed+=("$heading")
}

about() {
    python - "$device" <<'PYTHON' || return 1
import sys
from importlib.util import find_spec

from misalign_det.utils.benchmark import machine  # first: it says what the stack below lacks

import mmcv
import mmdet
import mmengine
import torch

print(machine(sys.argv[1]))
versions = [f"{m.__name__} {m.__version__}" for m in (mmcv, mmengine, mmdet)]
if find_spec("triton") is not None:
    import triton

    versions.append(f"triton {triton.__version__}")
if torch.version.cuda:
    versions.append(f"CUDA {torch.version.cuda}")
print(", ".join(versions))
PYTHON
    if command -v nvidia-smi >/dev/null; then
        echo "driver $(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)"
    fi
    local commit
    commit=$(git -C "$here" rev-parse --short HEAD 2>/dev/null) || return 0
    git -C "$here" diff --quiet HEAD 2>/dev/null || commit="$commit and changes"
    echo "commit $commit"
}

[ -n "$dry" ] || about || exit 1

ours=(--models "TripleHead + JLA" "RFAHead + SpatialAlign") # beside FCOS
if [ -n "$quick" ]; then
    table "Label assignment" assignment --num-objects 1 7 --sizes small --repeats 1 --without-paa
    table "Label assignment of two images" \
        assignment --num-images 2 --num-objects 7 --sizes small --repeats 1 --without-paa
    table "The mixture" mixture --num-objects 1 7 --repeats 1
    table "CLBalancedNMS" nms --num-boxes 1000 20000 --num-classes 1 80 --repeats 1
    table "Steps, ResNet-18" step --repeats 1 "${ours[@]}"
    table "Steps, ResNet-50, batch 2" step --scale r50 --batch-size 2 --counts-only "${ours[@]}"
    table "The import" import_time --repeats 1
    table "Variants" variants --repeats 1 --variants plain "channels last" bfloat16
else
    table "Label assignment" assignment
    table "Label assignment of two images" assignment --num-images 2 --without-paa
    table "The mixture" mixture
    table "CLBalancedNMS" nms
    table "Steps, ResNet-18" step
    table "Steps, ResNet-18, channels last" step --channels-last "${ours[@]}"
    table "Steps, ResNet-50, batch 2" step --scale r50 --batch-size 2
    case $device in
        cuda*) table "Steps, ResNet-50, batch 8, mixed precision" \
            step --scale r50 --batch-size 8 --amp "${ours[@]}" ;;
    esac
    table "Variants" variants
    table "The import" import_time
fi
if [ ${#refinement[@]} -gt 0 ]; then
    table "Sparse refinement" refinement "${refinement[@]}"
elif [ -z "$only" ] || [ "$only" = refinement ]; then
    printf '\n## Sparse refinement\n\nneeds a trained TripleHead: --refinement CONFIG CHECKPOINT\n'
fi

if [ ${#failed[@]} -gt 0 ]; then
    printf '\nfailed:\n'
    printf '  %s\n' "${failed[@]}"
    exit 1
fi
