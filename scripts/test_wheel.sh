#!/usr/bin/env bash
# The wheel in an environment of its own, away from the clone: `make test-wheel` (and .ci/run).
# The dependencies are those of $PYTHON's environment, seen through a .pth file, so that nothing is installed twice; an
# editable install there is not seen, for its own .pth is not read.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$python" -m build --wheel --outdir "$folder" . > "$folder/build.log" 2>&1 || { cat "$folder/build.log"; exit 1; }
"$python" -m venv --without-pip "$folder/venv"
site=$("$folder/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$site/dependencies.pth"
"$python" -m pip --python "$folder/venv/bin/python" install --quiet --no-deps --no-index "$folder"/*.whl

export PATH=$folder/venv/bin:$PATH HF_HUB_OFFLINE=1 BRINGUP_CACHE=$folder/cache
unset PYTHONPATH BRINGUP_BACKEND
cd "$(mktemp -d -p "$folder")"
model=models/org/small/n150/functional/model.py

ask() {  # the text that the output of a command must have, and the command
    local want=$1
    shift
    echo "test-wheel: $*"
    "$@" > out.txt 2>&1 || { cat out.txt; echo "test-wheel: failed"; exit 1; }
    grep -q -- "$want" out.txt || { cat out.txt; echo "test-wheel: no \"$want\" in it"; exit 1; }
}

ask "$folder/venv" python -c 'import bringup, ttnn_emulator; print(bringup.__file__)'
ask "ttnn-bringup $(sed -n 's/__version__ = "\(.*\)"/\1/p' "$OLDPWD/bringup/__init__.py")" bringup --version
ask "^report .*reports/demo/report.html" bringup demo
ask "emulator: ready" bringup doctor --backend emulator --offline
ask "Predicted t/s/u" bringup plan meta-llama/Llama-3.2-1B
ask "next: pytest" bringup new checkpoints/tiny-llama --id org/small
ask "^PASS: 10 passed" bringup check $model --model checkpoints/tiny-llama --quick
test -f reports/small-n150/report.html
echo "test-wheel: 7 passed, 0 failed"
