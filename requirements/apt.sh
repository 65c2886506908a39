#!/usr/bin/env bash
# apt.sh PACKAGE...: installs Debian packages as root, or where sudo asks for no password; else says what to type.
set -euo pipefail
if ! command -v apt-get >/dev/null; then
  echo "missing on this system, by Debian's names: $*; install them in this system's own way" >&2
  exit 1
fi
install=(apt-get install --yes --no-install-recommends "$@")
if [ "$(id -u)" = 0 ]; then
  as_root=()
elif sudo -n true 2>/dev/null; then
  as_root=(sudo -n)
else
  if command -v sudo >/dev/null; then
    line="type: sudo apt-get update && sudo ${install[*]}"
  else
    line="type as root: apt-get update && ${install[*]}"
  fi
  echo "missing on this system: $*; $line" >&2
  exit 1
fi
echo "installing $* (apt)"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# A repository that does not answer is no reason to stop: the installation shows whether it was needed.
"${as_root[@]}" apt-get update -qq >"$log" 2>&1 || true
if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}" >>"$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi
