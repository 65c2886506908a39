"""A second writer is refused as long as the first is at work, and no longer."""

from pathlib import Path

import pytest

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.lock import only_writer


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "arm"
    refused = pytest.raises(InputError, match=r"another process is at work in .*, or stop it")
    with only_writer(place, ""), refused, only_writer(place, "or stop it"):
        raise AssertionError
    with only_writer(place, ""), only_writer(tmp_path / "other", ""):
        pass
