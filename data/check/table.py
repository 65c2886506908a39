"""A check's findings for a terminal."""

from rich.console import Console
from rich.table import Table

from trimtab.data.check.findings import Report

SIGNS = {"ok": "✓", "warning": "!", "error": "✗"}
_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def print_report(report: Report) -> None:
    """Print every finding with its worst rows, and the verdict."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    table = Table(title=f"{report.source}: {report.pairs} pairs in {report.rows} rows, form {report.form}")
    for column, justify in (
        ("", "left"),
        ("check", "left"),
        ("what was found", "left"),
        (f"worst {report.unit}s", "left"),
    ):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for finding in report.findings:
        style = _STYLES[finding.level]
        rows = ", ".join(map(str, finding.rows))
        table.add_row(f"[{style}]{SIGNS[finding.level]}[/]", finding.check, _plain(finding.summary), rows)
    console.print(table)
    console.print(verdict(report), markup=False, highlight=False)


def verdict(report: Report) -> str:
    """One sentence."""
    errors = sum(int(finding.figures.get("count", 1)) for finding in report.findings if finding.level == "error")
    warnings = sum(finding.level == "warning" for finding in report.findings)
    if errors:
        return f"{report.source}: {errors} rows with errors, {warnings} warnings; --fix OUT drops or repairs them"
    return f"{report.source}: {report.pairs} pairs, no errors, {warnings} warnings"


def _plain(text: str) -> str:
    """Text that rich does not read as markup."""
    return text.replace("[", r"\[")
