#!/usr/bin/env bash
# Evaluate on several GPUs of one or more machines, one process per GPU, started by torchrun.
#
#   bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
#
# Several machines: run it on each of them with NNODES, their number, NODE_RANK (0, 1, ...), and
# MASTER_ADDR and PORT of machine 0. On machine 1 of 2:
#
#   NNODES=2 NODE_RANK=1 MASTER_ADDR=10.0.0.1 PORT=29500 bash tools/dist_test.sh CONFIG CHECKPOINT GPUS
#
# Without a GPU the processes run on the CPU over gloo. NCCL_SOCKET_IFNAME (GPU) and GLOO_SOCKET_IFNAME
# (CPU) name the network interface where the wrong one is taken. See tools/README.md.
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
config=$1 checkpoint=$2 gpus=$3
shift 3
if [ "${NNODES:-1}" != 1 ] && [[ -z "${NODE_RANK:-}" || -z "${MASTER_ADDR:-}" ]]; then
    echo "NNODES=$NNODES needs NODE_RANK of this machine and MASTER_ADDR of machine 0" >&2
    exit 2
fi
# Idle OpenMP threads sleep, since the processes share the cores of the CPU.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
# "python -m torch.distributed.run" is torchrun of the active Python.
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$gpus" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
