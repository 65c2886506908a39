"""A small comparison on disk, and its report."""

from typing import Any

import pytest
from small_run import write_run

from trimtab.compare.run import compare, finished_report, load_report
from trimtab.recipes.schema import Recipe


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    recipe = write_run(tmp_path_factory.mktemp("runs"))
    assert finished_report(recipe) is None
    compare(recipe)
    return recipe


@pytest.fixture(scope="module")
def report(compared: Recipe) -> dict[str, Any]:
    return load_report(compared)
