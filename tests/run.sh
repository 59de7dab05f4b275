#!/usr/bin/env bash
# The environment, then style and types, then every test, slow ones included. Arguments go to pytest.
#
#   bash tests/run.sh
#   bash tests/run.sh -m "not slow" -k environment
#
#   MISALIGN_DET_TEST_JOBS   test processes at a time (default: one per core, and at most 4)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null
source tools/setup_environment.sh
# CUDA builds of torch bring it. Its interpreter and compiler, which need no GPU, run and compile the
# kernels; with a gigabyte it is not for everybody's environment.
python -c 'import triton' 2>/dev/null || step "Installing Triton" quiet_pip "triton>=2.1"
echo "==> Checking the style of the code"
python -m ruff check .
python -m ruff format --check .
# Older releases have no types of what the code uses of newer ones, where these are installed.
if python -c 'import sys, torch
sys.exit(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6))'; then
    echo "==> Checking the types"
    python -m mypy
else
    echo "==> Types are checked with torch 2.6 and later"
fi
echo "==> Running the tests"
cores=$(env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 1) # nproc believes that variable
# The tensors are small: with a second thread the tests take twice as long.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
# Many tests start a tool: without compiled files each would spend most of its time on imports.
unset PYTHONDONTWRITEBYTECODE
# By file, so that what the tests of a file share is made once.
exec python -m pytest -n "${MISALIGN_DET_TEST_JOBS:-$((cores < 4 ? cores : 4))}" --dist loadfile \
    --durations 10 "$@"
