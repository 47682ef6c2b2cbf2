#!/usr/bin/env bash
# Builds, tests and benchmarks on a machine with a GPU: with the system's Python where that has all it takes (no network
# needed then, and no environment is made), else in the environment that `make install` makes.
#
# Reads PYTHON, VENV, JPEG_ROOT (a libjpeg-turbo outside the system's folders), DATA (photographs for the benchmarks),
# FASTSSL_CUDA_ARCHS (default: the GPU's own) and FASTSSL_COMMIT (where there is no repository to ask).
# Writes benchmarks/results/<device>-<commit>.json, or, where OUT is set, a copy there too.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} venv=${VENV:-.venv}
modules="torch torchvision numpy timm tqdm PIL setuptools pybind11 pytest pytest_benchmark hypothesis scipy"

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
PYTHON=$python bash .ci/system-packages
export PATH="$(dirname "$python"):$PATH" PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if [ -n "${JPEG_ROOT:-}" ]; then
  export JPEG_ROOT LD_LIBRARY_PATH="$JPEG_ROOT/lib:$JPEG_ROOT/lib/$(uname -m)-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi

arch=${FASTSSL_CUDA_ARCHS:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d '. ')}
echo "gpu-check: building for sm_$arch with $(nvcc --version | sed -n 's/.*release \([^,]*\),.*/CUDA \1/p'), $python"
FASTSSL_CUDA=ON FASTSSL_CUDA_ARCHS=$arch "$python" setup.py -q build_ext --inplace egg_info
"$python" - <<'PY'
import fastssl

info = fastssl.build_info()
print("gpu-check:", info)
if not info["cuda_architectures"] or not fastssl.has_cuda():
    raise SystemExit("gpu-check: the build has no CUDA, or the driver offers it no GPU (architectures, devices: above)")
PY

# A failing test does not keep the benchmarks from running: time on a GPU is dear. It does fail the check.
status=0
FASTSSL_REQUIRE_CUDA=1 "$python" -m pytest || status=$?

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" benchmarks/views.py --quick ${DATA:+--data "$DATA"} --out "$scratch/views.json" || status=$?
"$python" benchmarks/masks.py --out "$scratch/masks.json" || status=$?
"$python" -m pytest benchmarks/test_micro.py --benchmark-columns=min,median,iqr,rounds \
  --benchmark-json "$scratch/micro.json" || status=$?
"$python" benchmarks/gather.py "$scratch"/*.json || status=$?
exit $status
