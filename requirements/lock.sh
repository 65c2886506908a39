#!/usr/bin/env bash
# Resolves pyproject.toml into cpu.lock and gpu.lock with uv, from a throw-away environment; clients.in and lm-eval.in
# likewise.
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

# lm-evaluation-harness comes on top of either lock: what those have stays as it is, and out of this one.
awk -F== 'NR == FNR {both[$1]; next} !($1 in both)' requirements/cpu.lock requirements/gpu.lock >"$tmp/gpu-only.txt"
[ -n "${UPGRADE:-}" ] || cp requirements/lm-eval.lock "$tmp/lm-eval.lock" 2>/dev/null || true
"$tmp/venv/bin/uv" pip compile -q requirements/lm-eval.in --constraint requirements/cpu.lock \
  --constraint "$tmp/gpu-only.txt" --override requirements/overrides-lm-eval.txt --python-version 3.11 \
  --python-platform x86_64-manylinux_2_28 --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
  -o "$tmp/lm-eval.lock"
{
  echo "# What comes on top of cpu.lock or gpu.lock. Made by \`make lock\` from requirements/lm-eval.in."
  grep -vxFf requirements/cpu.lock "$tmp/lm-eval.lock"
} >requirements/lm-eval.lock
