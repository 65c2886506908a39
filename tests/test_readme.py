"""The README cannot rot: its table is the stored report's, its commands and folders are there."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from marked import marked
from stored import items, stored

from trimtab.cli.main import build_parser
from trimtab.compare.table import COLUMNS, cells

README = Path("README.md").read_text()


def quickstart_table(report_file: str) -> str:
    """The table as it must stand in the README."""
    report = json.loads(Path("docs/quickstart", report_file).read_text())
    rows = [cells(row, report["prompts"]) for row in report["arms"]]
    header = " | ".join(column.replace("|", "\\|") for column in COLUMNS)
    lines = [f"| {header} |", "|---" + "|--:" * (len(COLUMNS) - 1) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


@pytest.mark.parametrize(
    ("mark", "report_file"), [("quickstart", "report.json"), ("quickstart avx2", "report-avx2.json")]
)
def test_table_is_the_stored_reports(mark: str, report_file: str) -> None:
    stands = README.split(f"<!-- {mark} -->\n")[1].split(f"\n<!-- /{mark} -->")[0]
    assert stands == quickstart_table(report_file)


def test_every_command_in_the_table_parses() -> None:
    commands = re.findall(r"^\| `trimtab ([^`]+)`", README, re.MULTILINE)
    assert len(commands) == 23
    for command in commands:
        line = command.replace("RECIPE", "recipes/quickstart.yaml").replace("OUT", "out.jsonl")
        for options in (re.sub(r"\[.*?\]", "", line), line.replace("[", "").replace("]", "")):
            build_parser().parse_args(options.split())


def test_forms_and_findings_are_documented() -> None:
    from trimtab.data.formats.forms import FORMS
    from trimtab.data.pair import Fault

    text = Path("docs/data.md").read_text()
    table = re.findall(r"^\| `([\w-]+)` \| (.+) \| \[[^]]+\]\(([^)]+)\) \|$", text, re.MULTILINE)
    assert {name: (columns, source.replace("#votes", "docs/data.md")) for name, columns, source in table} == {
        form.name: (form.columns, form.source) for form in FORMS.values()
    }
    assert [name for name, _, _ in table] == list(FORMS)
    named = set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))
    assert set(get_args(Fault)) <= named
    assert findings_in_the_code() <= named


def medians(content: dict[str, Any]) -> dict[str, float]:
    """Of a measurement's figures."""
    return {name: figure["median"] for name, figure in content["figures"].items()}


def data_line(content: dict[str, Any]) -> str:
    """The words as they must stand in docs/data.md."""
    median = medians(content)
    return (
        f"`convert` reads and writes {median['convert_rows_per_s']:,.0f} rows a second, of {content['rows']:,} "
        f"({content['file_mib']:.0f} MiB), in {median['convert_peak_mib']:.0f} MiB, "
        f"{median['convert_vs_datasets']:.1f} times as many as the `datasets` library; "
        f"`check` without a tokenizer does {median['rows_per_s']:,.0f} in {median['peak_mib']:,.0f} MiB"
    )


def speed_table(where: str, content: dict[str, Any]) -> str:
    """The table as it must stand in docs/training.md."""
    versions = content["versions"]
    lines = [
        f"On {where}, torch {versions['torch']}, TRL {versions['trl']}:",
        "",
        "| pairs | arm | pairs a second, TRL | ours | ours / TRL | peak memory, TRL | ours | ours / TRL |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for cell, figures in content["results"].items():
        speedup = figures["speedup"]
        lines.append(
            f"| {' | '.join(cell.split())} | {figures['trl_pairs_per_s']:.2f} | {figures['fast_pairs_per_s']:.2f} "
            f"| {speedup['median']:.2f} ({speedup['min']:.2f} to {speedup['max']:.2f}) "
            f"| {figures['trl_peak_mib']:,} MiB | {figures['fast_peak_mib']:,} MiB | {figures['memory']:.2f} |"
        )
    return "\n".join(lines)


def speed_tables() -> str:
    """A table a machine."""
    return "\n\n".join(speed_table(*each) for each in stored("train").items())


def speed_line() -> str:
    """The words as they must stand in the README, machines side by side."""
    said = []
    for where, content in stored("train").items():
        cells = content["results"]
        orpo, dpo = (cells.get(f"sample {arm}") or cells[f"1b {arm}"] for arm in ("orpo", "dpo"))
        said.append(
            f"on {where} {orpo['speedup']['median']:.1f} (ORPO) and {dpo['speedup']['median']:.1f} (DPO) times "
            f"the pairs a second of TRL's trainers in {orpo['memory']:.0%} and {dpo['memory']:.0%} of their memory"
        )
    return "; ".join(said)


def merge_line(content: dict[str, Any]) -> str:
    """The words as they must stand in docs/export.md."""
    median = medians(content)
    return (
        f"{content['checkpoint_gb']:.1f} GB, rank {content['rank']} on all linear layers, in "
        f"{median['over_cp']:.2f} times the time of `cp` of the same files, with {median['peak_mib']:.0f} MiB "
        f"over the interpreter; {median['vs_peft_time']:.1f} times as fast as PEFT's `merge_and_unload` and "
        f"`save_pretrained`, in {median['vs_peft_memory']:.1%} of their memory"
    )


def quantize_line(content: dict[str, Any]) -> str:
    """The words as they must stand in docs/export.md."""
    median = medians(content)
    return (
        f"{median['seconds']:.0f} s against {median['baseline_seconds']:.0f} s of GPTQModel as its README has it; "
        f"mean KL from the model {median['kl']:.3f} against {median['baseline_kl']:.3f} nats a token, "
        f"the same most likely token at {median['top1']:.1%} against {median['baseline_top1']:.1%} of positions. "
        f"NF4 takes {median['nf4_seconds']:.0f} s and has {median['nf4_kl']:.3f} and {median['nf4_top1']:.1%}"
    )


def demo_line(content: dict[str, Any]) -> str:
    """The words as they must stand in docs/demo.md."""
    added = content["figures"]["added_first_token_ms"]
    return (
        f"{added['median']:.0f} ms ({added['min']:.0f} to {added['max']:.0f} in {added['runs']} rounds, "
        f"{content['arms']} arms at once)"
    )


def front_line(content: dict[str, Any]) -> str:
    """The words as they must stand in docs/operations.md."""
    median = medians(content)

    def three(name: str, form: str) -> str:
        one, eight, most = (format(median[f"{name}_{n}"], form) for n in (1, 8, 32))
        return f"{one}, {eight} and {most}"

    through, past = (median[f"stand_in_{way}_ttft_ms"] for way in ("front", "direct"))
    return (
        f"{three('throughput', '.2f')} times the engine's own tokens a second with 1, 8 and 32 streams, and "
        f"{three('added_ttft_ms', '.1f')} ms more to the first token, of {three('bare_ttft_ms', '.0f')} ms; "
        f"{through - past:.1f} ms over an engine that needs no core"
    )


MODES = {
    "an engine an arm": "an engine an arm: 4-bit base, DPO, ORPO",
    "adapters on one engine": "`--mode adapters`: base, DPO, ORPO in float32",
    "one arm": "one arm: 4-bit ORPO",
}


def modes_table(where: str, content: dict[str, Any]) -> str:
    """The table as it must stand in docs/operations.md."""
    head = "| | ready after | memory in all | one stream | six streams |"
    lines = [f"On {where}:", "", head, "|---|--:|--:|--:|--:|"]
    for mode, figures in content["figures"].items():
        rates = " | ".join(f"{figures[f'tokens_per_s_{n}']:.0f}" for n in (1, 6))
        lines.append(
            f"| {MODES[mode]} | {figures['start_s']:.0f} s | {figures['memory_mib'] / 1024:.1f} GiB | {rates} |"
        )
    return "\n".join(lines)


def modes_tables() -> str:
    """A table a machine."""
    return "\n\n".join(modes_table(*each) for each in stored("serve_modes").items())


@pytest.mark.parametrize(
    ("page", "marker", "wanted"),
    [
        ("README.md", "bench", speed_line),
        ("docs/data.md", "bench", lambda: items("data", data_line)),
        ("docs/training.md", "bench", speed_tables),
        ("docs/export.md", "merge", lambda: items("merge", merge_line)),
        ("docs/export.md", "quantize", lambda: items("quantize", quantize_line)),
        ("docs/demo.md", "demo", lambda: items("demo", demo_line)),
        ("docs/operations.md", "front", lambda: items("serve", front_line)),
        ("docs/operations.md", "modes", modes_tables),
    ],
)
def test_figures_are_the_stored_results(page: str, marker: str, wanted: Callable[[], str]) -> None:
    assert marked(page, marker) == " ".join(wanted().split())


def findings_in_the_code() -> set[str]:
    sources = "".join(path.read_text() for path in Path("data/check").glob("*.py"))
    return set(re.findall(r"Finding\(\s*\"([^\"]+)\"", sources))


def test_every_folder_has_its_line_and_every_link_its_file() -> None:
    folders = {path.parent.name for path in Path().glob("*/__init__.py")}
    named = set(re.findall(r"^\| \[(\w+)/\]", README, re.MULTILINE))
    assert folders <= named
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert Path(link).exists(), link
