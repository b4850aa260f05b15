#!/usr/bin/env bash
# The tests that need the vendor's ttnn, in .venv-ttnn made from a Python that has a wheel: 3.12 or 3.10.
# Without such a Python it says so and does nothing; with CI=true that is a failure. TTNN_PYTHON names one.
set -euo pipefail
cd "$(dirname "$0")/.."
env=.venv-ttnn

has_wheel() {
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 12)))' 2> /dev/null
}

find_python() {
    local version found
    if [ -n "${TTNN_PYTHON:-}" ]; then
        echo "$TTNN_PYTHON"
        return
    fi
    for version in 3.12 3.10; do
        for found in "python$version" "$(pyenv prefix "$version" 2> /dev/null)/bin/python"; do
            if has_wheel "$found"; then
                echo "$found"
                return
            fi
        done
    done
    if has_wheel python3; then echo python3; fi
}

current() {
    [ -x "$env/bin/python" ] && [ "$(cat "$env/.ttnn-bringup" 2> /dev/null)" = "$(cat pyproject.toml constraints.txt | cksum) $PWD" ]
}

if ! current; then
    python=$(find_python)
    if [ -z "$python" ] || ! has_wheel "$python"; then
        echo "test-ttnn: the ttnn wheel needs Python 3.12 or 3.10, and none was found${python:+ ($python is another)}." >&2
        echo "  Looked for python3.12, python3.10 and pyenv's; TTNN_PYTHON=PATH names one." >&2
        [ "${CI:-}" != true ] || exit 1
        echo "test-ttnn: skipped" >&2
        exit 0
    fi
    echo "test-ttnn: making $env from $("$python" --version) (several GB, once)"
    "$python" -m venv --clear "$env"
    "$env/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[ttnn,test]' --constraint constraints.txt
    echo "$(cat pyproject.toml constraints.txt | cksum) $PWD" > "$env/.ttnn-bringup"
fi

# BRINGUP_REQUIRE_TTNN: a test that finds no wheel fails here, where elsewhere it is skipped.
export BRINGUP_REQUIRE_TTNN=1 HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
exec "$env/bin/python" -m pytest tests/mock -m 'not hardware' -n 2 "$@"
