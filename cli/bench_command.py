"""``trimtab bench``: its arguments, and what it does; heavy imports inside."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from trimtab.cli.part_or_recipe import whole_number


def add_bench(command: ArgumentParser) -> None:
    """The arguments of ``trimtab bench``."""
    command.description = (
        "Tokens a second and times of an endpoint under load, measured by vLLM's own `vllm bench serve`. "
        "A key is taken from OPENAI_API_KEY. Exit code 1 when requests failed."
    )
    command.add_argument("url", metavar="URL", help="the endpoint, http://HOST:PORT/v1")
    command.add_argument("--model", metavar="NAME", help="the model (default: the only one that is listed)")
    command.add_argument(
        "--streams",
        type=whole_number,
        nargs="+",
        default=[1, 8, 32],
        metavar="N",
        help="requests in work at once, one measurement each (default: 1 8 32)",
    )
    command.add_argument(
        "--requests",
        type=whole_number,
        metavar="N",
        help="requests a measurement (default: 4 a stream, 16 at least)",
    )
    command.add_argument(
        "--prompt-tokens", type=whole_number, default=128, metavar="N", help="about (default: 128)"
    )
    command.add_argument(
        "--answer-tokens", type=whole_number, default=64, metavar="N", help="exactly (default: 64)"
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="write bench.json and bench.png into this folder")
    command.set_defaults(run=bench)


def bench(arguments: Namespace) -> int:
    """Measure and print; 1 when requests failed."""
    from rich.console import Console

    from trimtab.serve.load import Load, endpoint_root, measure, served_model
    from trimtab.serve.load_report import level_table, write_report

    root = endpoint_root(arguments.url)
    load = Load(
        root=root,
        model=served_model(root, arguments.model),
        levels=tuple(dict.fromkeys(arguments.streams)),
        requests=arguments.requests,
        prompt_tokens=arguments.prompt_tokens,
        answer_tokens=arguments.answer_tokens,
    )
    if arguments.out:
        _make_folder(arguments.out)
    console, levels = Console(), []
    with console.status("vllm bench serve starts ...") as status:
        for level in measure(load):
            levels.append(level)
            status.update(f"{len(levels)} of {len(load.levels)} measurements are done ...")
    console.print(level_table(load, levels))
    if arguments.out:
        write_report(load, levels, arguments.out)
        print(f"written: {arguments.out / 'bench.json'}, {arguments.out / 'bench.png'}")
    failed = [level for level in levels if level.failed]
    for level in failed:
        print(f"{level.failed} of {level.requests} requests failed at {level.streams} streams: {level.error}")
    return 1 if failed else 0


def _make_folder(path: Path) -> None:
    from trimtab.artifacts.errors import InputError

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {path}: {error.strerror}; give a folder that can be written") from error
