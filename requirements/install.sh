#!/usr/bin/env bash
# Installs $LOCK into $VENV: exact versions, nothing is resolved. To cpu.lock and gpu.lock belong what the system must
# bring and this project, editable. In order: system, uv, torch, the lock, the project, bytecode.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${PYTHON:=python3}" "${VENV:=.venv}" "${LOCK:=requirements/cpu.lock}"
: "${TORCH_CPU_INDEX:=https://download.pytorch.org/whl/cpu}"
[[ $LOCK == *[cg]pu.lock ]] && project=yes || project=

PYTHON=$("$PYTHON" - <<'PY'
import sys
if not (3, 11) <= sys.version_info[:2] < (3, 13):
    sys.exit(f"setup: Python 3.11 or 3.12 is needed, got {sys.version.split()[0]}; "
             "name one: make setup PYTHON=python3.11")
print(sys.executable)
PY
)
export PYTHON LOCK
if [ "$project" ]; then
  free_gib=$(($(df -Pk . | awk 'NR == 2 {print $4}') / 1048576))
  if [ "$free_gib" -lt 6 ]; then
    echo "setup: 6 GiB of free disk are needed here, got $free_gib GiB; free some and run it again" >&2
    exit 2
  fi
  bash requirements/system.sh
fi

# Python's own pip serves where there is one: to unpack another into the environment takes as long as all the rest.
if "$PYTHON" -c 'import pip' 2>/dev/null; then
  pip=("$PYTHON" -m pip --python "$VENV/bin/python") bare=(--without-pip)
else
  pip=("$VENV/bin/python" -m pip) bare=()
fi
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "${bare[@]}" "$VENV"

errors=$(mktemp -d)
trap 'rm -rf "$errors"' EXIT
pip_install=("${pip[@]}" install --quiet --disable-pip-version-check --no-deps --no-compile)
options=() kept=
if [ -x "$VENV/bin/uv" ] || "${pip_install[@]}" "uv>=0.9" 2>"$errors/uv"; then
  eval "$("${pip[@]}" config list | "$PYTHON" requirements/pip_settings.py)"
  export UV_LINK_MODE="${UV_LINK_MODE:-hardlink}" # files keep their times, so that copies of bytecode fit them
  install=("$VENV/bin/uv" pip install --quiet --python "$VENV/bin/python" --no-deps "${options[@]}")
  index=--default-index kept=$("$VENV/bin/uv" cache dir)/trimtab-bytecode/$(basename "$LOCK" .lock).zip
else
  echo "setup: no uv ($(tail -n 1 "$errors/uv")); with pip it takes some minutes"
  install=("${pip_install[@]}") index=--index-url
fi

echo "setup: installing $(grep -c == "$LOCK") packages of $LOCK"
# torch's +cpu build is on few indexes. PyTorch's own is asked for it alone, and only where pip's settings lead to none.
torch=$(grep '^torch==.*+cpu' "$LOCK" || true)
if [ "$torch" ] && ! "${install[@]}" "$torch" 2>"$errors/first"; then
  echo "setup: $torch from $TORCH_CPU_INDEX"
  if ! "${install[@]}" "$index" "$TORCH_CPU_INDEX" "$torch" 2>"$errors/second"; then
    cat "$errors/first" >&2
    echo "setup: $TORCH_CPU_INDEX was asked too:" >&2
    cat "$errors/second" >&2
    exit 1
  fi
fi
"${install[@]}" -r "$LOCK"
if [ "$project" ]; then
  "${install[@]}" --no-build-isolation --editable .
  mkdir -p "$VENV/types" && ln -sfn ../.. "$VENV/types/trimtab" # for mypy, see pyproject.toml
fi
# Every process imports torch, and some environments write no bytecode.
"$VENV/bin/python" requirements/bytecode.py "$VENV"/lib/python3*/site-packages $kept
[ -z "$project" ] || echo "setup: done; \`$VENV/bin/trimtab doctor\` says what this machine can do"
