"""The comparison as tables for a terminal; the README shows the first of them."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

COLUMNS = (
    "arm",
    "training time",
    "peak memory",
    "preference accuracy",
    "chosen style",
    "KL 4-bit | merged",
)


def cells(row: dict[str, Any], answers: int) -> tuple[str, ...]:
    """One arm's figures as text, in the order of COLUMNS; ``answers``: how many it gave, over all seeds."""
    seconds, memory, kl = row["train_seconds"], row["peak_memory_mib"], row["quantized_kl"]
    in_style = round(row["chosen_style_rate"] * answers)
    return (
        row["arm"],
        f"{seconds:.0f} s" if seconds else "–",
        f"{memory / 1024:.1f} GiB" if memory else "–",
        f"{row['preference_accuracy']:.0%} of {row['preference_pairs']}",
        f"{row['chosen_style_rate']:.0%} ({in_style}/{answers})",
        f"{kl:.3f} nats" if kl is not None else "–",
    )


def print_tables(report: dict[str, Any], side_by_side: int) -> None:
    """Print the figures and the first ``side_by_side`` prompts with every arm's answer."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    title = f"{report['name']}: {report['model']}, served as {report['artifact']}"
    if kernels := sorted(set(report.get("kernels", {}).values())):
        title += f" ({', '.join(kernels)} kernel)"
    figures = Table(title=Text(title, style="table.title"))
    for column in COLUMNS:
        figures.add_column(column, justify="left" if column == "arm" else "right")
    for row in report["arms"]:
        figures.add_row(*cells(row, report["prompts"] * _seeds(report, row["arm"])))
    console.print(figures)
    arms = [row["arm"] for row in report["arms"]]
    for answer in report["answers"][:side_by_side]:
        table = Table(title=Text(answer["prompt"], style="bold"), title_justify="left", expand=True)
        for arm in reversed(arms):
            table.add_column(arm, ratio=1, overflow="fold")
        table.add_row(*(Text(answer[arm]["text"]) for arm in reversed(arms)))  # a str would be read as markup
        console.print(table)


def _seeds(report: dict[str, Any], arm: str) -> int:
    """How many seeds the arm's answers are of: the base has one."""
    return len(report["by_seed"]["style_score"][arm])
