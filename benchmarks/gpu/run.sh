#!/usr/bin/env bash
# Everything that wants a GPU, within a budget, on a machine without a network: README.md beside this file.
#
#     benchmarks/gpu/run.sh [OUT] [BUDGET] [--device cuda] [--toy]
#
# Every part has a process and a time limit of its own; whatever becomes of it, the others run, and
# OUT/results.json says how it ended and holds all that it had measured by then.
set -u

usage() {
    echo "usage: run.sh [OUT] [BUDGET, such as 10m or 90s] [--device cuda|cpu] [--toy]" >&2
    exit 2
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
parts=${PARTS:-$here}     # folder of the parts
python=${PYTHON:-python3} # that has torch
out=outputs/gpu budget=10m device=cuda toy=()
place=0
while [ $# -gt 0 ]; do
    case $1 in
    --device) [ $# -gt 1 ] || usage; device=$2; shift ;;
    --toy) toy=(--toy) ;;
    -*) usage ;;
    *)
        place=$((place + 1))
        case $place in 1) out=$1 ;; 2) budget=$1 ;; *) usage ;; esac
        ;;
    esac
    shift
done
[[ $budget =~ ^([0-9]+)(s|m)?$ ]] || usage
budget=${BASH_REMATCH[1]}
[ "${BASH_REMATCH[2]:-}" = m ] && budget=$((budget * 60))
[ "$budget" -ge 1 ] || usage

mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
rm -f "$out/results.json" "$out/log.txt"
end=$((SECONDS + budget - 10)) # what is left is for killing a part that hangs, and for this script itself

# Libraries from the bundle come after the checkout and before the machine's own
export PYTHONPATH=$root:$work/site PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
if cp -r "$here/bundle/cache" "$work/cache" 2>/dev/null; then export XDG_CACHE_HOME=$work/cache; fi
# OpenGL without a display: the loaders from the bundle, where the machine lacks one
if [ -d "$here/bundle/gl" ] && [ "$(ldconfig -p 2>/dev/null | grep -c -E '^\s(libEGL\.so\.1|libGL\.so\.1) ')" -lt 2 ]; then
    export LD_LIBRARY_PATH=$here/bundle/gl:/usr/local/nvidia/lib64:${LD_LIBRARY_PATH:-}
    export GLCONTEXT_LINUX_LIBGL=libOpenGL.so.0 GLCONTEXT_LINUX_LIBEGL=libEGL.so.1
fi
vendor=/usr/local/nvidia/share/glvnd/egl_vendor.d/10_nvidia.json # where containers have the driver
if [ -e "$vendor" ] && ! ls /usr/share/glvnd/egl_vendor.d/*nvidia* /etc/glvnd/egl_vendor.d/*nvidia* >/dev/null 2>&1; then
    export __EGL_VENDOR_LIBRARY_FILENAMES=$vendor
fi

# part NAME PERCENT: run NAME.py for this share of the budget at most
part() {
    local name=$1 limit=$((budget * $2 / 100)) left=$((end - SECONDS)) began=$SECONDS code status reason
    [ "$limit" -le "$left" ] || limit=$left
    echo "== $name: $limit s at most" | tee -a "$out/log.txt"
    if [ "$limit" -lt 2 ]; then
        note "$name" skipped 0 "no time is left"
        return
    fi
    timeout -k 5 "$limit" "$python" "$parts/$name.py" --out "$out" --work "$work" --seconds "$limit" \
        --device "$device" ${toy[@]+"${toy[@]}"} >"$work/$name.log" 2>&1 </dev/null
    code=$?
    reason=$(tail -n 1 "$work/$name.log" | cut -c 1-300)
    tail -c 60000 "$work/$name.log" >>"$out/log.txt"
    case $code in
    0) status=ok reason= ;;
    124 | 137) status=timeout reason="stopped after $limit s; the last line: $reason" ;;
    *) status=failed reason="ended with code $code; the last line: $reason" ;;
    esac
    note "$name" "$status" $((SECONDS - began)) "$reason"
}

# note NAME STATUS SECONDS REASON: into results.json, and onto the screen
note() {
    echo "== $1: $2 after $3 s${4:+ ($4)}" | tee -a "$out/log.txt"
    "$python" "$here/report.py" "$out" "$@" >>"$out/log.txt" 2>&1
}

part install 10
part machine 10
part exactness 13
part speed 20
part backbone 25
part train 100 # all that is left
note run finished "$SECONDS" "budget $budget s, device $device${toy[*]:+, toy sizes}"
