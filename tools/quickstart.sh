#!/usr/bin/env bash
# From a fresh clone to a trained and evaluated detector, with pictures:
#
#   bash tools/quickstart.sh
#
# Finished steps are not repeated, and an interrupted training is resumed. The variables at the head
# of tools/setup_environment.sh choose the environment and the stack.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
begin=$SECONDS
source tools/setup_environment.sh
export PYTHONWARNINGS=ignore # the warnings of other packages would hide the messages
# Idle OpenMP threads sleep: with other load, threads that spin slow every step down.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
# glibc keeps the memory of feature maps for the next step; with its defaults each step spends time
# on page faults.
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-33554432}
export MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-4294967296}

name=misalign_effnet-lite0_fpn_quickstart_shapes
config=configs/$name.py
data=data/quickstart
work=work_dirs/$name

# A checksum of the config with its bases, and of the data.
run_id() {
    { python - "$config" <<'PYTHON'
import sys
from mmengine.config import Config
print(Config.fromfile(sys.argv[1]).pretty_text)
PYTHON
      cat "$data/shapes.json"
    } 2>/dev/null | cksum
}

is_run() { [ -f "$work/.$1" ] && [ "$(cat "$work/.$1")" = "$id" ]; }

last_checkpoint() { cat "$work/last_checkpoint" 2>/dev/null || true; }

# Of the log, which is kept as a whole in $work/training.txt, the progress.
progress() {
    sed -unE -e 's/.*Epoch\(train\) +\[([0-9]+)\]\[ *([0-9]+\/[0-9]+)\].* eta: ([0-9:]+).* loss: ([0-9.]+).*/    epoch \1, step \2, loss \4, \3 to go/p' \
        -e 's/.*Epoch\(val\).*bbox_mAP: ([0-9.]+).*bbox_mAP_50: ([0-9.]+).*/    validation: AP \1, AP50 \2/p'
}

train() {
    local resume=() log=$work/training.txt
    if is_run started && [ -f "$(last_checkpoint)" ]; then
        echo "    continuing from $(last_checkpoint)"
        resume=(--resume)
    fi
    mkdir -p "$work"
    echo "$id" >"$work/.started"
    if ! mim train misalign_det "$config" ${resume[@]+"${resume[@]}"} 2>&1 |
        tee -a "$log" | progress; then
        tail -n 20 "$log" >&2
        return 1
    fi
    echo "$id" >"$work/.finished"
}

evaluate() {
    local log=$work/evaluation/log.txt
    mkdir -p "$work/evaluation"
    if ! python tools/test.py "$config" "$checkpoint" --work-dir "$work/evaluation" \
        >"$log.part" 2>&1; then
        tail -n 20 "$log.part" >&2
        return 1
    fi
    mv "$log.part" "$log"
    show_figures
}

show_figures() { grep -E 'Average (Precision|Recall)' "$work/evaluation/log.txt"; }

# A line of it, AP and the verdict, ends this script's summary.
report() {
    python tools/analysis/misalignment_report.py "$config" "$checkpoint" \
        --out "$work/misalignment_report.html" >"$work/report.txt"
}

# fresh FILE: it is newer than the checkpoint.
fresh() { [ "$1" -nt "$checkpoint" ]; }

step "Drawing the data set $data (training and validation images, COCO format)" \
    python tools/dataset_converters/shapes.py --out-dir "$data" --min-size 30
id=$(run_id)
if is_run finished && [ -f "$(last_checkpoint)" ]; then
    echo "==> The training is done already ($work)"
else
    step "Training $config (about three and a half minutes on two cores)" train
fi
checkpoint=$(last_checkpoint)

if fresh "$work/evaluation/log.txt"; then
    echo "==> The evaluation is done already"
    show_figures
else
    step "Evaluating $checkpoint on the validation images" evaluate
fi
# The report uses one core most of the time: the pictures and curves are made beside it.
reporting=
if ! fresh "$work/misalignment_report.html"; then
    report &
    reporting=$!
    trap 'kill "$reporting" 2>/dev/null || true' EXIT
fi
fresh "$work/pictures/overview.png" ||
    step "Saving pictures of detections beside the ground truth" \
        python tools/analysis/save_pictures.py "$config" "$checkpoint" --out-dir "$work/pictures" \
       
fresh "$work/curves.png" ||
    step "Plotting the curves of losses and AP" \
        python tools/analysis/plot_curves.py "$work" --out "$work/curves.png"
[ -z "$reporting" ] ||
    step "Measuring how well scores, boxes and locations agree" wait "$reporting"
trap - EXIT

cat <<END

Done in $(minutes $((SECONDS - begin))). Look at
    $work/pictures/overview.png    detections (right) beside ground truth (left)
    $work/curves.png               losses and AP over the training
    $work/misalignment_report.html    do the scores say how good the boxes are?
    $work/evaluation/log.txt       AP and AR of the evaluation
    $checkpoint    the trained detector
    $work/config.py    the whole config of the run

$(grep ': AP ' "$work/report.txt")
END
