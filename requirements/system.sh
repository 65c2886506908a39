#!/usr/bin/env bash
# Looks for what $LOCK needs of the system: for the things themselves, not for names of packages. What is missing is
# installed through apt.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${PYTHON:=python3}" "${LOCK:=requirements/cpu.lock}"

python() { "$PYTHON" -c "import ctypes, os, sys, sysconfig; $1" 2>/dev/null; }
version=$(python 'print("%d.%d" % sys.version_info[:2])')
compiler=${CC:-$(python 'print(sysconfig.get_config_var("CC"))')}
builds() { $compiler -x c -o /dev/null - "$@" 2>/dev/null; } # a program from the standard input; $compiler may have options

# One line for each thing that is missing: Debian's packages for it, and what it is.
missing() {
  python 'import ensurepip, venv' || echo "python$version-venv: Python's venv"
  # GPTQModel needs pypcre, which is built here from C.
  builds <<<$'#include <stdlib.h>\nint main(void) { return 0; }' || echo "gcc libc6-dev: a C compiler"
  python 'sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
    echo "python$version-dev: Python's headers"
  builds -lpcre2-8 <<<$'#define PCRE2_CODE_UNIT_WIDTH 8\n#include <pcre2.h>\nint main(void) { return 0; }' ||
    echo "libpcre2-dev: PCRE2 with its header"
  # bitsandbytes is linked with the first, vLLM's CPU build with the second.
  python 'ctypes.CDLL("libgomp.so.1")' || echo "libgomp1: libgomp.so.1"
  [[ $LOCK != *cpu.lock ]] || python 'ctypes.CDLL("libnuma.so.1")' || echo "libnuma1: libnuma.so.1"
}

found=$(missing)
[ -n "$found" ] || exit 0
echo "setup: not on this system: $(cut -d: -f2- <<<"$found" | paste -sd, | sed 's/^ //')"
# shellcheck disable=SC2046 # several names
bash requirements/apt.sh $(cut -d: -f1 <<<"$found")
found=$(missing)
if [ -n "$found" ]; then
  echo "setup: installed, and still not found by $PYTHON and $compiler:$(cut -d: -f2- <<<"$found" | paste -sd,)" >&2
  exit 1
fi
