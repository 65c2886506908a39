"""What each ``trimtab data`` command does; heavy imports inside."""

import json
from argparse import Namespace
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.data.source import Source


def convert(arguments: Namespace) -> int:
    """Write the common form."""
    from trimtab.data.convert import convert as run_convert
    from trimtab.data.read import LEFT_OUT

    done = run_convert(
        _source(arguments), arguments.out, skip_invalid=arguments.skip_invalid, force=arguments.force
    )
    print(f"{arguments.out}: {done.pairs} pairs from {done.rows} rows, form {done.form}")
    if done.left_out:
        print(f"left out: {done.left_out} {LEFT_OUT[done.form]}")
    if done.refused:
        print(f"skipped: {done.refused.total()} rows that cannot be read", *done.examples, sep="\n  ")
    return 0


def check(arguments: Namespace) -> int:
    """Report; 1 if there are errors."""
    from trimtab.artifacts.errors import InputError
    from trimtab.data.check.fix import check_targets
    from trimtab.data.check.page import write_page
    from trimtab.data.check.run import Options
    from trimtab.data.check.run import check as run_check
    from trimtab.data.check.table import print_report
    from trimtab.data.source import Source

    source = _source(arguments)
    if not 0 < arguments.max_similarity <= 1 or arguments.max_length < 1:
        raise InputError("--max-similarity must lie between 0 and 1, --max-length must be 1 or more")
    if arguments.fix:
        check_targets(source, arguments.fix, force=arguments.force)
    if arguments.html and not arguments.html.parent.is_dir():
        raise InputError(f"--html {arguments.html}: there is no folder {arguments.html.parent}; make it")
    options = Options(
        heldout=Source(path=arguments.heldout) if arguments.heldout else None,
        tokenizer=_tokenizer(arguments.model) if arguments.model else None,
        model=arguments.model,
        max_length=arguments.max_length,
        max_similarity=arguments.max_similarity,
    )
    report = run_check(source, options)
    if arguments.html:
        write_page(report, arguments.html)
    if arguments.json:
        print(json.dumps(report.as_json(), indent=1, ensure_ascii=False))
    else:
        print_report(report)
    if arguments.fix:
        _fix(arguments, source, report, options)
    return 0 if report.passed or arguments.fix else 1


def split(arguments: Namespace) -> int:
    """Write the two parts."""
    from trimtab.artifacts.errors import InputError
    from trimtab.data.formats.containers import local_path
    from trimtab.data.pair import RowError
    from trimtab.data.read import read_pairs
    from trimtab.data.split import split_pairs
    from trimtab.data.write import check_target, pair_writer

    source = _source(arguments)
    outputs = (arguments.train, arguments.heldout)
    if arguments.train.resolve() == arguments.heldout.resolve():
        raise InputError(f"--train and --heldout are both {arguments.train}; give two names")
    for out in outputs:
        check_target(out, force=arguments.force, inputs=(local_path(source),))
    parts = split_pairs(read_pairs(source), arguments.share, arguments.seed)
    with ExitStack() as stack:  # both appear, or neither
        for write, pairs in zip([stack.enter_context(pair_writer(out)) for out in outputs], parts, strict=True):
            for pair in pairs:
                try:
                    write(pair)
                except RowError as error:
                    raise InputError(f"{source}: a pair cannot be written: {error}") from error
    print(*(f"{out}: {len(pairs)} pairs" for out, pairs in zip(outputs, parts, strict=True)), sep="\n")
    return 0


def sample(arguments: Namespace) -> int:
    """Print rendered rows."""
    from trimtab.artifacts.errors import InputError
    from trimtab.data.show import print_rows

    if arguments.rows < 1:
        raise InputError(f"--rows {arguments.rows}: must be 1 or more")
    print_rows(_source(arguments), lambda: _tokenizer(arguments.model), arguments.rows, arguments.row)
    return 0


def _fix(arguments: Namespace, source: "Source", report: Any, options: Any) -> None:
    import sys

    from trimtab.data.check.fix import changes_path, fix

    fixed = fix(source, report, options, arguments.fix, force=arguments.force)
    lines = [f"{arguments.fix}: {fixed.written} pairs, {fixed.repaired} of them repaired, {fixed.dropped} dropped"]
    lines += [f"  {count} {reason}" for reason, count in fixed.reasons.most_common(12)]
    lines.append(f"each row and why: {changes_path(arguments.fix)}")
    print("\n".join(lines), file=sys.stderr if arguments.json else sys.stdout)


def _source(arguments: Namespace) -> "Source":
    from trimtab.artifacts.errors import InputError
    from trimtab.data.source import Source

    columns = {}
    for pair in arguments.columns:
        here, _, there = pair.partition("=")
        if not here or not there or here in columns:
            raise InputError(f"--columns {pair}: needs the form prompt=NAME, each column once")
        columns[here] = there
    return Source(
        path=arguments.source,
        form=arguments.form,
        split=arguments.split_name,
        subset=arguments.subset,
        columns=tuple(columns.items()),
    )


def _tokenizer(model: str) -> Any:
    from trimtab.artifacts.base_model import resolve_tokenizer

    return resolve_tokenizer(model)
