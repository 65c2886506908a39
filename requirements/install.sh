#!/usr/bin/env bash
# Makes $VENV from $LOCK (exact versions, no resolution), then installs this project, editable.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${PYTHON:=python3}" "${VENV:=.venv}" "${LOCK:=requirements/cpu.lock}"

"$PYTHON" - <<'PY'
import sys
if not (3, 11) <= sys.version_info[:2] < (3, 13):
    sys.exit(f"setup: Python 3.11 or 3.12 is needed, got {sys.version.split()[0]}; "
             "name one: make setup PYTHON=python3.11")
PY
free_gib=$(($(df -Pk . | awk 'NR == 2 {print $4}') / 1048576))
if [ "$free_gib" -lt 6 ]; then
  echo "setup: 6 GiB of free disk are needed here, got $free_gib GiB; free some and run it again" >&2
  exit 2
fi
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"

install() { "$VENV/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-compile "$@"; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "setup: installing $(grep -c == "$LOCK") packages of $LOCK (a few minutes, once)"
# torch's +cpu build is not on every index: the plain install first, then PyTorch's own CPU index.
if ! install -r "$LOCK" 2>"$log"; then
  echo "setup: again with $TORCH_CPU_INDEX"
  install -r "$LOCK" --extra-index-url "$TORCH_CPU_INDEX" || { cat "$log" >&2; exit 1; }
fi
# Bytecode by all cores at once, not by pip on one: every process imports torch, and some environments write none.
"$VENV/bin/python" -m compileall -qq -j 0 "$VENV"/lib/python3*/site-packages || true # a few are templates, no Python
install --no-build-isolation --editable .
mkdir -p "$VENV/types" && ln -sfn ../.. "$VENV/types/trimtab" # for mypy, see pyproject.toml
echo "setup: done; \`$VENV/bin/trimtab doctor\` says what this machine can do"
