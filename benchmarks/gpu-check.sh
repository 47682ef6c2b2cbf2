#!/usr/bin/env bash
# Builds, tests and benchmarks on a machine with a GPU: with the system's Python where that has all it takes (no network
# needed then, and no environment is made), else in the environment that `make install` makes.
#
# In parts, which PART picks one or more of ("tests bench"), where time is short; what they leave is in build/gpu-check:
#   build     compiles for this GPU's architecture
#   tests     tests/test_cuda*.py, without what only the host's emulator can do (the marker "emulator")
#   losses    losses.py; where the GPU has wgmma, the tests and times of the kernels that FASTSSL_WGMMA=0 takes, too
#   bench     gpu_views.py, the micro-benchmarks, views.py --quick; then benchmarks/results/<device>-<commit>.json and .md
#   decode    gpu_decode.py --quick: every decoder, and the Loader beside them; joined with the above
#   stall     stall.py --quick: what training loses to data; joined with the above
#   sanitize  compute-sanitizer's memcheck, racecheck and initcheck over gpu_small.py
#   suite     the rest of the tests
#   profile   ncu's figures for each kernel; only where asked for
# Nothing that needs a GPU can pass by skipping: FASTSSL_REQUIRE_CUDA=1. A part that fails does not keep the later ones from
# running, since time on a GPU is dear; it does fail the check.
#
# Reads PYTHON, VENV, JPEG_ROOT (a libjpeg-turbo outside the system's folders), DATA (photographs for the benchmarks), CIFAR (the
# folder of CIFAR-10), LOADER_THREADS (of decode and stall, "16 4"; what is beyond the machine's cores is left out), LOSSES and STALL
# (options of losses.py and stall.py, such as --quick), SMALL (options of gpu_small.py, such as --only losses), FASTSSL_CUDA_ARCHS
# (default: the GPU's own), FASTSSL_COMMIT (where the repository at hand is not that of the code), and OUT (a folder that gets
# copies of the results).
#
# Where time is short: LIMIT (seconds for all of it; what is under way then is ended, what is left is said, and both fail the check)
# and JOBS (processes that the tests run in, by pytest-xdist; beside them, what losses and stall are to compile is compiled).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} venv=${VENV:-.venv} parts=${PART:-build tests losses bench decode stall sanitize suite}
limit=${LIMIT:-} jobs=${JOBS:-}
modules="torch torchvision numpy timm tqdm PIL setuptools pybind11 pytest pytest_benchmark hypothesis scipy"

for part in $parts; do
  case $part in
    build | tests | losses | bench | decode | stall | sanitize | suite | profile) ;;
    *) echo "gpu-check: PART=$part is none of build, tests, losses, bench, decode, stall, sanitize, suite, profile" >&2 && exit 2 ;;
  esac
done
for number in $limit $jobs; do
  case $number in
    *[!0-9]* | 0) echo "gpu-check: LIMIT=$limit JOBS=$jobs: each must be a whole number, or empty" >&2 && exit 2 ;;
  esac
done

run() { # a command, for as long as LIMIT allows
  if [ -z "$limit" ]; then
    "$@"
    return
  fi
  local left=$((limit - SECONDS)) failed=0
  if [ "$left" -lt 5 ]; then
    echo "gpu-check: no time left for: $*" >&2
    return 1
  fi
  timeout -k 5 "$left" "$@" || failed=$?
  [ "$failed" != 124 ] && [ "$failed" != 137 ] || echo "gpu-check: LIMIT=$limit ended: $*" >&2
  return "$failed"
}

lacks() { # what the Python given lacks, and what the machine lacks
  "$1" - $modules <<'PY' || echo "a working '$1'"
import importlib.util, sys
print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))
PY
  PATH="$(dirname "$(command -v "$1" || echo .)"):$PATH"
  for tool in cmake ninja; do command -v "$tool" >/dev/null || echo "$tool"; done
}

command -v nvidia-smi >/dev/null && nvidia-smi -L || { echo "gpu-check: no NVIDIA GPU here (nvidia-smi finds none)" >&2; exit 1; }
export PATH="$PATH:${CUDA_HOME:-/usr/local/cuda}/bin"
command -v nvcc >/dev/null || { echo "gpu-check: no nvcc; put CUDA's compiler on the PATH or set CUDA_HOME" >&2; exit 1; }

missing=$(lacks "$python" | xargs)
if [ -n "$missing" ]; then
  echo "gpu-check: $python lacks: $missing. Trying the environment in $venv."
  make --no-print-directory install || { echo "gpu-check: no network? Give $python what it lacks: $missing" >&2; exit 1; }
  python=$venv/bin/python
fi
python=$(command -v "$python")
if [ -n "$jobs" ] && ! "$python" -c "import xdist" 2>/dev/null; then
  echo "gpu-check: JOBS=$jobs needs pytest-xdist, which $python lacks: install it, or leave JOBS out" >&2
  exit 1
fi
PYTHON=$python bash .ci/system-packages
export PATH="$(dirname "$python"):$PATH" PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if [ -n "${JPEG_ROOT:-}" ]; then
  export JPEG_ROOT LD_LIBRARY_PATH="$JPEG_ROOT/lib:$JPEG_ROOT/lib/$(uname -m)-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
state=build/gpu-check
mkdir -p "$state"

build() {
  local arch=${FASTSSL_CUDA_ARCHS:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d '. ')}
  echo "gpu-check: building for sm_$arch with $(nvcc --version | sed -n 's/.*release \([^,]*\),.*/CUDA \1/p'), $python"
  rm -f "$state"/*
  FASTSSL_CUDA=ON FASTSSL_CUDA_ARCHS=$arch "$python" setup.py -q build_ext --inplace egg_info || return
  "$python" - <<'PY'
import fastssl

info = fastssl.build_info()
print("gpu-check:", info)
if not info["cuda_architectures"] or not fastssl.has_cuda():
    raise SystemExit("gpu-check: the build has no CUDA, or the driver offers it no GPU (architectures, devices: above)")
PY
}

tests() {
  local failed=0 ahead=()
  if [ -n "$jobs" ]; then
    case " $parts " in *" losses "*) ahead+=("--losses=${LOSSES:-}") ;; esac
    case " $parts " in *" stall "*) ahead+=(--stall) ;; esac
  fi
  if [ "${#ahead[@]}" != 0 ]; then
    run "$python" benchmarks/compile_ahead.py "${ahead[@]}" &
  fi
  FASTSSL_REQUIRE_CUDA=1 FASTSSL_TEST_DEVICES=cuda run "$python" -m pytest tests/test_cuda*.py ${jobs:+-n "$jobs" -p no:benchmark} \
    -m "not emulator" || failed=$?
  wait # for what is compiled: it must not run beside a benchmark
  return "$failed"
}

suite() {
  FASTSSL_REQUIRE_CUDA=1 run "$python" -m pytest --ignore-glob='*/tests/test_cuda*.py' ${jobs:+-n "$jobs" -p no:benchmark}
}

losses() {
  local failed=0
  run "$python" benchmarks/losses.py ${LOSSES:-} --out "$state/losses.json" || failed=$?
  gather || failed=$?
  wgmma || failed=$?
  return "$failed"
}

# Where wgmma is what is taken, the other kernels besides.
wgmma() {
  [ "$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1)" = 9.0 ] || return 0
  local value failed=0
  FASTSSL_WGMMA=0 FASTSSL_REQUIRE_CUDA=1 FASTSSL_TEST_DEVICES=cuda run timeout -k 10 200 "$python" -m pytest tests/test_cuda_contrastive.py ${jobs:+-n "$jobs" -p no:benchmark} \
    -m "not emulator and not wgmma" || failed=$?
  for value in 0 1; do
    echo "gpu-check: FASTSSL_WGMMA=$value"
    FASTSSL_WGMMA=$value run timeout -k 10 100 "$python" benchmarks/losses.py --ours --out "$state/wgmma-$value.report" || failed=$?
    [ -z "${OUT:-}" ] || cp "$state/wgmma-$value.report" "$OUT/losses-wgmma-$value.json"
  done
  return "$failed"
}

# Joined after each, so that a time limit loses only what came after it.
bench() {
  local failed=0
  run "$python" benchmarks/gpu_views.py ${DATA:+--data "$DATA"} ${CIFAR:+--cifar "$CIFAR"} --out "$state/gpu_views.json" || failed=$?
  gather || failed=$?
  run "$python" benchmarks/masks.py --out "$state/masks.json" || failed=$?
  gather || failed=$?
  run "$python" -m pytest benchmarks/test_micro.py --benchmark-columns=min,median,iqr,rounds \
    --benchmark-json "$state/micro.json" || failed=$?
  gather || failed=$?
  run "$python" benchmarks/views.py --quick ${DATA:+--data "$DATA"} ${CIFAR:+--cifar "$CIFAR"} --out "$state/views.json" || failed=$?
  gather || failed=$?
  return "$failed"
}

decode() {
  local failed=0
  run "$python" benchmarks/gpu_decode.py --quick --threads ${LOADER_THREADS:-16 4} ${DATA:+--data "$DATA"} --out "$state/gpu_decode.json" || failed=$?
  gather || failed=$?
  return "$failed"
}

stall() {
  local failed=0
  run "$python" benchmarks/stall.py ${STALL:---quick} --threads ${LOADER_THREADS:-16 4} ${DATA:+--data "$DATA"} --out "$state/stall.json" || failed=$?
  gather || failed=$?
  return "$failed"
}

gather() {
  "$python" benchmarks/gather.py "$state"/*.json
}

sanitize() {
  command -v compute-sanitizer >/dev/null || {
    echo "gpu-check: no compute-sanitizer; it comes with CUDA's toolkit, in its bin: put that on the PATH or set CUDA_HOME" >&2
    return 1
  }
  local tool failed=0
  for tool in memcheck racecheck initcheck; do
    echo "gpu-check: compute-sanitizer --tool $tool, begun $(date +%T)"
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 run timeout 300 compute-sanitizer --tool "$tool" --error-exitcode 9 --target-processes all \
      "$python" benchmarks/gpu_small.py ${SMALL:-} >"$state/$tool.log" 2>&1 || failed=$?
    awk 'NR <= 40 { print } { last[NR % 5] = $0 } END { for (i = NR - 4; i <= NR; ++i) if (i > 40) print last[i % 5] }' "$state/$tool.log"
    [ -z "${OUT:-}" ] || cp "$state/$tool.log" "$OUT/"
  done
  return "$failed"
}

# The clocks are left as they are.
profile() {
  command -v ncu >/dev/null || { echo "gpu-check: no ncu (Nsight Compute); put it on the PATH" >&2; return 1; }
  local task failed=0
  for task in simclr dino; do
    kernels "$task" "$task, a batch of 256" gpu_views.py --once "$task" ${DATA:+--data "$DATA"} || failed=$?
  done
  kernels losses "NT-Xent, a step of 16,384 x 128" losses.py --once || failed=$?
  return "$failed"
}

kernels() { # name, title, benchmark and its options
  local file=$state/$1.ncu title=$2 failed=0
  shift 2
  run ncu --csv --print-units base --clock-control none --target-processes all --kernel-name-base demangled \
    --kernel-name regex:fastssl --metrics "$("$python" benchmarks/gpu_stages.py --metrics)" \
    "$python" "benchmarks/$1" "${@:2}" >"$file" || failed=$?
  echo "$title:"
  "$python" benchmarks/gpu_stages.py "$file" || failed=$?
  [ -z "${OUT:-}" ] || cp "$file" "$OUT/"
  return "$failed"
}

status=0 failures=""
for part in $parts; do
  echo "gpu-check: $part, begun $(date +%T)"
  if ! "$part"; then
    status=1 failures="$failures $part"
    [ "$part" != build ] || break # nothing else can run
  fi
done
[ "$status" = 0 ] && echo "gpu-check: passed: $parts" || echo "gpu-check: failed:$failures" >&2
exit "$status"
