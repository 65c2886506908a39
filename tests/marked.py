"""What stands in a page between two markers."""

from pathlib import Path


def marked(page: str, marker: str) -> str:
    """Between ``<!-- marker -->`` and ``<!-- /marker -->``, its lines as one."""
    text = Path(page).read_text(encoding="utf-8")
    return " ".join(text.split(f"<!-- {marker} -->")[1].split(f"<!-- /{marker} -->")[0].split())
