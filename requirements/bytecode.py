"""Compiles what the project's processes import, on all cores: bytecode.py SITE_PACKAGES [KEPT]

A lock brings 31,000 modules, and a third of their text is all that is ever imported. So the way goes from the
imports in the project's files, and from the modules below, to what those import when they are imported themselves,
and on. What is not met on this way Python compiles at its first import, as always.

KEPT is a file with copies of the bytecode: a new environment of the same files has it at once.
"""

import importlib.util
import multiprocessing
import os
import py_compile
import re
import struct
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
# Imported by no import statement: programs, and what packages look up by name. A star: every module of the folder.
STARTS = """
    accelerate.commands.launch build.__main__ lm_eval.__main__ pytest schemathesis
    gptqmodel.nn_modules.* gptqmodel.nn_modules.qlinear.* torch._inductor.compile_fx torch.distributed.* torch.onnx
    transformers.integrations.* transformers.models.auto.* transformers.models.llama.* transformers.trainer
    trl.experimental.orpo trl.trainer.*
    vllm.entrypoints.cli.* vllm.entrypoints.openai.api_server vllm.model_executor.models.llama
    vllm.v1.engine.* vllm.v1.executor.* vllm.v1.worker.*
"""
IMPORT = r"(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|.+)|import[ \t]+(.+))"
ANYWHERE, AT_ONCE = re.compile(rf"\n[ \t]*{IMPORT}"), re.compile(rf"\n{IMPORT}")


def imported(text: str, package: str, statement: re.Pattern[str]) -> Iterator[str]:
    """The names that a file of ``package`` imports; of ``from a import b`` a and a.b, which may be a module."""
    for source, names, modules in statement.findall(f"\n{text}"):
        if modules:
            yield from (module.split()[0] for module in modules.split("#")[0].split(",") if module.strip())
        else:
            base = importlib.util.resolve_name(source, package) if source.startswith(".") else source
            yield base
            listed = re.sub(r"#.*|[()]", "", names).split(",")
            yield from (f"{base}.{name.split()[0]}" for name in listed if name.strip())


def starts(site: Path) -> Iterator[str]:
    """The names of all modules to start from."""
    for name in STARTS.split():
        if name.endswith(".*"):
            yield from (f"{name[:-2]}.{file.stem}" for file in site.joinpath(*name.split(".")[:-1]).glob("*.py"))
        else:
            yield name
    for file in PROJECT.glob("[a-z]*/**/*.py"):
        yield from imported(file.read_text(), "trimtab", ANYWHERE)


def reached(site: Path) -> list[str]:
    """The files of all modules that are imported from there, below ``site``."""
    files, met, waiting = [], set(), list(starts(site))
    while waiting:
        name = waiting.pop()
        if name in met:
            continue
        met.add(name)
        parent = name.rpartition(".")[0]
        if parent:
            waiting.append(parent)
        path = os.path.join(site, *name.split("."))
        for file, package in ((f"{path}/__init__.py", name), (f"{path}.py", parent)):
            if os.path.isfile(file):
                files.append(file)
                with open(file, encoding="utf-8", errors="replace") as text:
                    waiting.extend(imported(text.read(), package, AT_ONCE))
                break
    return files


def fits(bytecode: bytes, file: str) -> bool:
    """Whether Python would take this bytecode for the file: of its version, and of the file's time and size."""
    stat = os.stat(file)
    numbers = (0, int(stat.st_mtime) & 0xFFFFFFFF, stat.st_size & 0xFFFFFFFF)
    return bytecode[:16] == importlib.util.MAGIC_NUMBER + struct.pack("<III", *numbers)


def is_compiled(file: str) -> bool:
    try:
        with open(importlib.util.cache_from_source(file), "rb") as bytecode:
            return fits(bytecode.read(16), file)
    except FileNotFoundError:
        return False


def compile_one(file: str) -> bool:
    try:
        py_compile.compile(file, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)
    except py_compile.PyCompileError:  # a template, or of another version of Python
        return False
    return True


def restore(files: list[str], site: Path, kept: Path) -> None:
    """Take from ``kept`` what fits."""
    with zipfile.ZipFile(kept) as copies:
        names = set(copies.namelist())
        for file in files:
            name = os.path.relpath(file, site)
            if name in names and fits(bytecode := copies.read(name), file):
                target = Path(importlib.util.cache_from_source(file))
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(bytecode)


def keep(files: list[str], site: Path, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    new = kept.with_suffix(f".{os.getpid()}")
    with zipfile.ZipFile(new, "w") as copies:
        for file in files:
            if is_compiled(file):
                copies.write(importlib.util.cache_from_source(file), os.path.relpath(file, site))
    new.replace(kept)


def main(site: Path, kept: Path | None) -> None:
    warnings.simplefilter("ignore")  # other people's escape sequences
    files = reached(site)
    missing = [file for file in files if not is_compiled(file)]
    if missing and kept and kept.is_file():
        restore(missing, site, kept)
        missing = [file for file in missing if not is_compiled(file)]
    with multiprocessing.Pool(len(os.sched_getaffinity(0))) as pool:
        compiled = sum(pool.imap_unordered(compile_one, missing, chunksize=16))
    if compiled and kept:
        keep(files, site, kept)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
