#!/usr/bin/env bash
# The environment from nothing, the tests and the quickstart on each stack, Python and torch.
#
#   bash tests/matrix.sh                                   all rows
#   bash tests/matrix.sh openmmlab-py310 torch2.13-py312   these rows
#   bash tests/matrix.sh --list                            the rows: name, Python, torch, stack
#   bash tests/matrix.sh --table                           write the table of tests/README.md again
#
#   --steps "environment suite quickstart"   only some of them
#   --again                                  also what has passed
#   -- ARGUMENT ...                          for pytest; the table then says that it is a part
#
# A row runs in a clone of the last commit, which goes when all three steps have passed. Results are
# lines of tests/matrix.jsonl. What has passed, or was refused as expected, is not repeated: after
# an interruption, or a step that failed, the same command goes on. The variables of
# tools/setup_environment.sh hold, and
#
#   MISALIGN_DET_MATRIX   folder of the clones and logs (default ~/.cache/misalign_det/matrix)
set -euo pipefail
exec </dev/null
REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${MISALIGN_DET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/misalign_det}
FOLDER=${MISALIGN_DET_MATRIX:-$CACHE/matrix}
STEPS="environment suite quickstart"

helper() { python3 "$REPOSITORY/tests/helpers/matrix.py" "$@"; }

environment() {
    rm -rf "$clone" && git clone --quiet "$REPOSITORY" "$clone" && cd "$clone" &&
        "python$python" -m venv .venv && bash tools/setup_environment.sh
}

suite() { cd "$clone" && bash tests/run.sh "${arguments[@]}"; }

quickstart() { cd "$clone" && bash tools/quickstart.sh; }

# In a shell of its own, where no other environment is active; its result is recorded.
run_step() {
    local step=$1 log=$FOLDER/$name-$1.txt start=$SECONDS status=0
    echo "==> $name: $step (log: $log)"
    (
        unset VIRTUAL_ENV CONDA_PREFIX
        export MISALIGN_DET_TORCH=$torch MISALIGN_DET_STACK=$stack
        "$step"
    ) >"$log" 2>&1 || status=$?
    helper record "$name" "$step" "$status" $((SECONDS - start)) "$log" "$clone" "$words"
    return "$status"
}

# The steps that remain of a row; with a failure, or a refusal, the later ones are left out.
run_row() {
    local clone=$FOLDER/$name todo=$STEPS step
    [ -n "$again" ] || todo=$(helper todo "$name" "$STEPS" "$words")
    if [ -n "$todo" ] && [ ! -d "$clone/.venv" ] && [[ $todo != environment* ]]; then
        todo="environment $todo"
    fi
    for step in $todo; do
        run_step "$step" || break
    done
    [ -n "$(helper todo "$name" "environment suite quickstart")" ] || rm -rf "$clone"
    [ -z "$(helper todo "$name" "$STEPS" "$words")" ] || failed="$failed $name"
}

names=() arguments=() again=""
while [ $# -gt 0 ]; do
    case $1 in
        --list) helper rows && exit ;;
        --table) helper table && exit ;;
        --steps) STEPS=$2 && shift ;;
        --again) again=1 ;;
        --) shift && arguments=("$@") && break ;;
        *) names+=("$1") ;;
    esac
    shift
done
words=${arguments[*]@Q}
for name in ${names[@]+"${names[@]}"}; do helper todo "$name" "$STEPS" >/dev/null; done

mkdir -p "$FOLDER"
failed=""
while read -r name python torch stack <&3; do
    [ ${#names[@]} -eq 0 ] || [[ " ${names[*]} " == *" $name "* ]] || continue
    run_row
done 3< <(helper rows)
helper table
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
