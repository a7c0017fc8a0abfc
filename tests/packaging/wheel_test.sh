#!/usr/bin/env bash
# Builds the wheel, installs it into an empty environment and uses it from a directory that is not the checkout.
# Called by `make wheel-test`, which sets BUILD_PYTHON (an interpreter with the package `build`) and PIP_ARGS.
set -euo pipefail
: "${BUILD_PYTHON:?run this through make wheel-test}"

root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$BUILD_PYTHON" -m build --wheel --outdir "$work/dist" "$root" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
wheel=$(echo "$work"/dist/aureole-*.whl)

"$BUILD_PYTHON" -m venv "$work/venv"
# shellcheck disable=SC2086  # PIP_ARGS holds several words on purpose.
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check ${PIP_ARGS:-} -c "$root/constraints.txt" "$wheel"

# An empty directory, so that the checkout's packages cannot be the ones imported.
mkdir "$work/empty"
cd "$work/empty"
"$work/venv/bin/python" -I "$root/tests/packaging/check_installed.py" "$root"
"$work/venv/bin/aureole" doctor
"$work/venv/bin/aureole" info strided3-none
"$work/venv/bin/aureole" demo --quick
echo "wheel-test: $(basename "$wheel") works in an empty environment"
