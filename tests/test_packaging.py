"""The wheel holds what is on disk, and what it holds works on its own."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = [
    package.removeprefix("trimtab.")
    for package in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
]
FOLDERS = [package.replace(".", "/") for package in PACKAGES]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # setuptools would pack what an older build left there
    subprocess.run(command, check=True, capture_output=True)
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    (path,) = out.glob("*.whl")
    return path


def test_every_package_folder_is_named() -> None:
    tests = {"tests", "build"}
    found = (path.parent.relative_to(ROOT) for path in ROOT.glob("[a-z]*/**/__init__.py"))
    on_disk = {".".join(path.parts) for path in found if path.parts[0] not in tests}
    assert set(PACKAGES) == on_disk


def test_wheel_equals_the_folders(wheel: Path) -> None:
    inside = {
        name.removeprefix("trimtab/") for name in zipfile.ZipFile(wheel).namelist() if name.startswith("trimtab/")
    }
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", *FOLDERS],
        check=True,
        capture_output=True,
        text=True,
    )
    assert inside == set(tracked.stdout.splitlines())


def test_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.meta_path[:] = "
        "[f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
        "from trimtab.cli.main import main\n"
        "import trimtab.cli.main as m; assert m.__file__.startswith(sys.path[0]), m.__file__\n"
        "sys.exit(main(['data', 'check', 'sample/train']))\n"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "pairs, no errors" in result.stdout
