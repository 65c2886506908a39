#!/usr/bin/env bash
# Resolves pyproject.toml into cpu.lock and gpu.lock with uv, from a throw-away environment; clients.in likewise.
# TORCH_CPU_LINKS names a folder or page that holds torch's +cpu wheel; without it PyTorch's own CPU index is used.
set -euo pipefail
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"${PYTHON:-python3}" -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q "uv>=0.9"

compile() { # target, further uv arguments...
  local target=$1
  shift
  # Pins that still fit stay as they are, unless UPGRADE=1.
  [ -n "${UPGRADE:-}" ] || cp "requirements/$target.lock" "$tmp/$target.lock" 2>/dev/null || true
  "$tmp/venv/bin/uv" pip compile -q pyproject.toml --extra "$target" --extra embedded --extra dev \
    --override requirements/overrides-embedded.txt --python-version 3.11 \
    --python-platform x86_64-manylinux_2_28 --no-header --no-annotate --no-emit-index-url \
    --no-emit-find-links -o "$tmp/$target.lock" "$@"
  {
    echo "# Exact versions, installed without resolution. Made by \`make lock\` from pyproject.toml."
    cat "$tmp/$target.lock"
  } >"requirements/$target.lock"
  echo "requirements/$target.lock: $(grep -c == "requirements/$target.lock") packages"
}

if [ -n "${TORCH_CPU_LINKS:-}" ]; then
  compile cpu --override requirements/overrides-cpu.txt --find-links "$TORCH_CPU_LINKS"
else
  compile cpu --override requirements/overrides-cpu.txt --torch-backend cpu
fi
compile gpu

"$tmp/venv/bin/uv" pip compile -q requirements/clients.in --python-version 3.11 \
  --python-platform x86_64-manylinux_2_28 --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
  -o "$tmp/clients.lock"
{
  echo "# Exact versions, installed without resolution. Made by \`make lock\` from requirements/clients.in."
  cat "$tmp/clients.lock"
} >requirements/clients.lock
