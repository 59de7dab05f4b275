#!/usr/bin/env bash
# Make or complete the Python environment of quickstart.sh and tests/run.sh. When it is complete,
# this takes seconds.
#
#   bash tools/setup_environment.sh       alone
#   source tools/setup_environment.sh     from a script: puts that environment first in PATH
#
# It uses the active virtual environment, or makes .venv in the repository. Variables:
#
#   MISALIGN_DET_STACK   onedl (default) or openmmlab: source of mmcv, mmengine, mmdet and mim
#   MISALIGN_DET_TORCH   version of torch, where none is installed (default: TORCH below)
#   MISALIGN_DET_CACHE   folder of the compiled mmcv (default ~/.cache/misalign_det)
#   MAX_JOBS             compilers at a time (default: one per core, and per 2 GB of memory)
#   FORCE_CUDA=1         compile mmcv's CUDA ops on a machine that has the toolkit but no GPU
#   PIP_INDEX_URL, PIP_FIND_LINKS, ...   indexes of pip, for instance for a CPU build of torch
#
# An installed torch is kept.

set -euo pipefail

TORCH=2.13.0
REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
STACK=${MISALIGN_DET_STACK:-onedl}
CACHE=${MISALIGN_DET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/misalign_det}
WANTED_TORCH=${MISALIGN_DET_TORCH:-$TORCH}

die() { printf 'error: %s\n' "$*" >&2; exit 1; }

minutes() { printf '%dm%02ds' $(($1 / 60)) $(($1 % 60)); }

# step "what is done" command...: says what it does, then how long that took.
step() {
    local what=$1 start=$SECONDS
    shift
    printf '==> %s\n' "$what"
    "$@" || die "this step failed: $what"
    printf '    %s\n' "$(minutes $((SECONDS - start)))"
}

# Whether a Python has the right version, can make environments, and has the headers to compile.
fits() {
    "$1" - >/dev/null 2>&1 <<'PYTHON'
import ensurepip, os, sys, sysconfig, venv
header = os.path.join(sysconfig.get_paths()["include"], "Python.h")
sys.exit(not ((3, 10) <= sys.version_info[:2] < (3, 13) and os.path.exists(header)))
PYTHON
}

# Puts the environment's bin first in PATH, and its folder in ENVIRONMENT.
choose_environment() {
    if [ -n "${VIRTUAL_ENV:-}" ] && [ -x "$VIRTUAL_ENV/bin/python" ]; then
        ENVIRONMENT=$VIRTUAL_ENV
    elif [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-base}" != base ]; then
        ENVIRONMENT=$CONDA_PREFIX
    else
        ENVIRONMENT=$REPOSITORY/.venv
        [ -x "$ENVIRONMENT/bin/python" ] ||
            step "Making the environment $ENVIRONMENT" make_environment
    fi
    export VIRTUAL_ENV=$ENVIRONMENT PATH=$ENVIRONMENT/bin:$PATH
    hash -r
    fits python || die "$ENVIRONMENT has $(python --version 2>&1); Python 3.10 to 3.12 with its" \
        "headers is needed. Deactivate or remove that environment and run this again."
}

make_environment() {
    local candidate
    for candidate in python3.12 python3.11 python3.10 python3; do
        if fits "$candidate"; then
            "$candidate" -m venv "$ENVIRONMENT"
            return
        fi
    done
    die "no Python 3.10 to 3.12 with venv and headers was found. $(way_to_a_python)conda create" \
        "--name misalign_det python=3.12, activate it and run this again."
}

# The system's own package, where it is a Python that fits.
way_to_a_python() {
    local system
    system=$( (. /etc/os-release && echo "${ID:-}-${VERSION_ID:-}") 2>/dev/null) || true
    case $system in
        debian-12 | ubuntu-22.04 | ubuntu-24.04) echo "apt install python3-venv python3-dev, or " ;;
        fedora-*) echo "dnf install python3.12-devel, or " ;;
    esac
}

# What is missing is said before the downloads. The environment takes 4 GB, and a torch with CUDA
# several more; how large pip's torch is shows only when pip has looked.
check_machine() {
    local free
    has_wheel || check_compiler
    python -c 'import torch' 2>/dev/null && return
    free=$(df -Pk "$ENVIRONMENT" 2>/dev/null | awk 'NR == 2 {print int($4 / 1000000)}') || return 0
    [ "${free:-99}" -ge 4 ] ||
        die "$free GB are free where $ENVIRONMENT is; the packages take 4 GB, with a torch for" \
            "CUDA about 10 GB"
    [ "${free:-99}" -ge 10 ] || echo "    note: $free GB are free; a torch for CUDA needs about 10 GB"
}

check_compiler() {
    local compiler=${CXX:-c++} # may have arguments, or ccache before it
    command -v "${compiler%% *}" >/dev/null ||
        die "there is no C++ compiler ($compiler), and mmcv's operators must be compiled. Debian," \
            "Ubuntu: apt install g++; Fedora: dnf install gcc-c++; conda: conda install gxx"
}

# Whether any mmcv of the stack was compiled before.
has_wheel() {
    [ -n "$(find "$CACHE/wheels" -path "*/$(mmcv_requirement)/*.whl" 2>/dev/null)" ]
}

# Errors only: pip's warnings about its indexes would hide the steps. Python compiles a file when it
# is first imported, and most files never are.
quiet_pip() {
    python -m pip --disable-pip-version-check install --no-compile --quiet --quiet "$@"
}

# What the environment depends on; a change reinstalls it.
fingerprint() {
    { cat "$REPOSITORY"/pyproject.toml "$REPOSITORY"/tools/environment/*.{txt,py} "${BASH_SOURCE[0]}"
      echo "$STACK $REPOSITORY"
      python -c 'import sys, torch; print(sys.version, torch.__version__)'
    } 2>/dev/null | cksum
}

# The constraints of NumPy for a torch: before 2.3 it was compiled against NumPy 1.
numpy_constraints() {
    case $1 in
        2.[0-2] | 2.[0-2].*) echo "$REPOSITORY/tools/environment/constraints-numpy1.txt" ;;
        *) echo "$REPOSITORY/tools/environment/constraints-numpy2.txt" ;;
    esac
}

# A build with CUDA is a long download: the large files are named.
install_torch() {
    python -m pip --disable-pip-version-check install --no-compile --progress-bar off \
        "torch==$WANTED_TORCH" numpy -c "$(numpy_constraints "$WANTED_TORCH")" \
        -c "$REPOSITORY/tools/environment/constraints.txt" |
        { grep --line-buffered -E 'Downloading .*([0-9]{3}\.[0-9] MB|GB)' || true; }
}

# Whether torch's headers need C++20; misalign_det/environment.py says from which version on.
torch_needs_cxx20() {
    python - "$(sed -n 's/^FIRST_TORCH_WITH_CXX20 = "\(.*\)"$/\1/p' \
        "$REPOSITORY/misalign_det/environment.py")" <<'PYTHON'
import re, sys, torch
numbers = lambda version: [int(part) for part in re.findall(r"\d+", version)[:2]]
sys.exit(numbers(torch.__version__) < numbers(sys.argv[1]))
PYTHON
}

# Prints what pip is to build: mmcv's name and version, or the folder of its source, with C++20 in
# its setup.py in place of C++17 where torch needs that.
mmcv_source() {
    local folder=$1
    if ! torch_needs_cxx20; then
        mmcv_requirement
        return
    fi
    python -m pip --disable-pip-version-check download --quiet --no-deps --no-build-isolation \
        --no-binary :all: --dest "$folder" "$(mmcv_requirement)" >&2 || return 1
    tar -xzf "$folder"/*.tar.gz -C "$folder" || return 1
    sed -i.orig 's/std=c++17/std=c++20/g' "$folder"/*/setup.py || return 1
    dirname "$folder"/*/setup.py
}

install_build_tools() {
    quiet_pip numpy wheel ninja packaging setuptools hatchling editables "${CONSTRAINTS[@]}"
}

# mmcv_requirement: onedl-mmcv==2.3.6, from the constraints of the stack.
mmcv_requirement() {
    grep -E '^(onedl-)?mmcv==' "$REPOSITORY/tools/environment/constraints-$STACK.txt"
}

# A wheel fits one torch build, Python and platform, and has CUDA ops or not.
wheel_folder() {
    local key
    key=$(python - <<'PYTHON'
import os, sys, sysconfig, torch
ops = "cpu"
if torch.cuda.is_available() or os.environ.get("FORCE_CUDA") == "1":
    ops = f"cuda{torch.version.cuda}-{os.environ.get('TORCH_CUDA_ARCH_LIST', 'native')}"
    if torch.cuda.is_available() and "TORCH_CUDA_ARCH_LIST" not in os.environ:
        ops += "-sm" + "".join(map(str, torch.cuda.get_device_capability()))
key = f"torch{torch.__version__}-{sys.implementation.cache_tag}-{sysconfig.get_platform()}-{ops}"
print(key.replace(" ", "_").replace(";", "_").replace("/", "_"))
PYTHON
    ) || return 1
    printf '%s/wheels/%s/%s' "$CACHE" "$key" "$(mmcv_requirement)"
}

# One compiler takes up to 2 GB.
jobs_that_fit() {
    local cores memory
    cores=$(nproc 2>/dev/null || echo 1)
    memory=$(awk '/MemAvailable/ {print int($2 / 2000000)}' /proc/meminfo 2>/dev/null) ||
        memory=$cores
    [ "${memory:-0}" -ge 1 ] || memory=1
    echo $((cores < memory ? cores : memory))
}

# Builds into a temporary folder and moves the finished wheel into place, so that no incomplete wheel
# is ever found. The build is its own session, so that its compilers end when it is interrupted.
build_mmcv() {
    local folder=$1 building log=$1/build.log pid start=$SECONDS count said="" source
    check_compiler
    rm -rf "$folder"/.building.* # of a build that was killed
    building=$(mktemp -d "$folder/.building.XXXXXX") || return 1
    mkdir "$building/source"
    if ! source=$(mmcv_source "$building/source"); then
        rm -rf "$building"
        die "the source of $(mmcv_requirement), to be compiled as C++20, cannot be had"
    fi
    export MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$(jobs_that_fit)}
    echo "    about 10 minutes on two cores; compilers at a time: $MAX_JOBS; log: $log"
    setsid python -m pip --disable-pip-version-check wheel -v --no-build-isolation --no-deps \
        --no-cache-dir --no-binary "$(mmcv_requirement | sed 's/==.*//')" \
        --wheel-dir "$building" "$source" >"$log" 2>&1 </dev/null &
    pid=$!
    # shellcheck disable=SC2064
    trap "kill -- -$pid 2>/dev/null; rm -rf '$building'; exit 130" INT TERM HUP
    while kill -0 "$pid" 2>/dev/null; do
        sleep 2
        count=$(grep -oE '\[[0-9]+/[0-9]+\]' "$log" | tail -n 1) || true
        if [ -n "$count" ] && [ "$count" != "$said" ] && [ $(((SECONDS - start) % 10)) -lt 2 ]; then
            echo "    $(minutes $((SECONDS - start)))  compiled $count"
            said=$count
        fi
    done
    trap - INT TERM HUP
    if ! wait "$pid"; then
        tail -n 40 "$log" >&2
        rm -rf "$building"
        die "mmcv did not compile; the whole log is $log"
    fi
    mv "$building"/*.whl "$folder/"
    rm -rf "$building"
}

# Sets WHEEL. Only one process builds; the others wait for it and take its wheel.
provide_mmcv() {
    local folder
    folder=$(wheel_folder) || die "torch cannot be imported"
    mkdir -p "$folder"
    exec 9>"$folder/.lock"
    if command -v flock >/dev/null && ! flock --nonblock 9; then
        echo "    another process is compiling the same wheel; waiting for it"
        flock 9
    fi
    if [ -z "$(find "$folder" -maxdepth 1 -name '*.whl')" ]; then
        step "Compiling $(mmcv_requirement) with its ops (once; the wheel is kept in $folder)" \
            build_mmcv "$folder"
    else
        echo "==> mmcv: using the wheel compiled before, in $folder"
    fi
    exec 9>&-
    WHEEL=$(find "$folder" -maxdepth 1 -name '*.whl' | head -n 1)
}

install_package() {
    quiet_pip --no-build-isolation "${CONSTRAINTS[@]}" "$WHEEL" \
        -e "${REPOSITORY}[$STACK,lite,data,report,export,test]" || return 1
    if python -c 'import cv2' 2>&1 | grep -q 'libGL\|libgthread'; then
        # opencv-python needs the libraries of a desktop; the headless build does not.
        quiet_pip --force-reinstall --no-deps "${CONSTRAINTS[@]}" opencv-python-headless
    fi
}

set_up_environment() {
    local start=$SECONDS stamp torch
    [ -f "$REPOSITORY/tools/environment/constraints-$STACK.txt" ] ||
        die "MISALIGN_DET_STACK=$STACK: it is onedl or openmmlab"
    choose_environment
    stamp=$ENVIRONMENT/.misalign_det
    if [ "$(cat "$stamp" 2>/dev/null)" = "$(fingerprint)" ] &&
        python -c 'import misalign_det' >/dev/null 2>&1; then
        echo "==> The environment $ENVIRONMENT is complete"
        return
    fi
    check_machine
    python -c 'import torch' 2>/dev/null || step "Installing torch $WANTED_TORCH" install_torch
    # The packages installed below must not replace the torch that mmcv is compiled against. To pip
    # the version is that of the metadata: a build with CUDA may have 2.13.0 there, and 2.13.0+cu130
    # as torch.__version__.
    torch=$(python -c 'import torch, importlib.metadata as m; print(m.version("torch"))') ||
        die "torch cannot be imported"
    echo "torch==$torch" >"$stamp-torch.txt"
    CONSTRAINTS=(-c "$stamp-torch.txt" -c "$(numpy_constraints "$torch")"
                 -c "$REPOSITORY/tools/environment/constraints-$STACK.txt")
    step "Installing the build tools" install_build_tools
    provide_mmcv
    step "Installing the $STACK stack and misalign_det" install_package
    # yapf, which mmengine prints configs with, writes its grammar at its first import, where another
    # process may read a half of it: trainings and tests in several processes would end.
    step "Checking the environment" python -c 'import misalign_det, yapf'
    fingerprint >"$stamp"
    echo "==> The environment $ENVIRONMENT is ready ($(minutes $((SECONDS - start))))"
}

set_up_environment
