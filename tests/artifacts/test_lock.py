"""A second writer is refused as long as the first is at work, and no longer."""

from pathlib import Path

import pytest

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.lock import only_writer


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "arm"
    with only_writer(place, "orpo"), pytest.raises(InputError, match="orpo: another process"):  # noqa: SIM117
        with only_writer(place, "orpo"):
            raise AssertionError
    with only_writer(place, "orpo"), only_writer(tmp_path / "other", "orpo"):
        pass
