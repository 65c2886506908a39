"""What an endpoint serves: directories by name, and what cannot be served."""

from pathlib import Path

import pytest
from small_endpoint import write_artifact

from trimtab.artifacts.errors import InputError
from trimtab.artifacts.manifest import Manifest, new_artifact
from trimtab.cli.main import main
from trimtab.recipes.load import load_serve_section
from trimtab.recipes.serve import ServeSection
from trimtab.serve.plan import make_processes, of_directories


@pytest.fixture
def directories(tmp_path: Path) -> list[str]:
    for arm in ("base", "orpo"):
        write_artifact(tmp_path / "one", arm, arm)
    write_artifact(tmp_path / "two", "orpo", "orpo")
    return [str(tmp_path / name / "merged") for name in ("one/base", "one/orpo", "two/orpo")]


def test_directories_are_named_by_their_arm_or_as_is_said(directories: list[str], tmp_path: Path) -> None:
    given = [directories[0], directories[1], f"next={directories[2]}"]
    section = ServeSection(aliases={"production": {"orpo": 9, "next": 1}})
    engines = of_directories(given, section).engines(tmp_path)
    assert {engine.name: engine.served for engine in engines} == {
        "base": {"base": Path(directories[0])},
        "orpo": {"orpo": Path(directories[1])},
        "next": {"next": Path(directories[2])},
    }
    assert {engine.kind for engine in engines} == {"merged"}
    assert len({engine.socket for engine in engines}) == 3


def test_what_cannot_be_served_says_why(directories: list[str], tmp_path: Path) -> None:
    with new_artifact(tmp_path / "adapter", Manifest(kind="adapter", arm="dpo")) as empty:
        (empty / "file").write_text("x")
    for given, aliases, said in [
        (directories, {}, "two models are called 'orpo'; give one another name: NAME="),
        ([f"a/b={directories[0]}"], {}, "'a/b' is no name"),
        ([str(tmp_path / "adapter")], {}, "holds an? adapter artifact, engines serve: merged, .* export merge"),
        ([str(tmp_path)], {}, "is not an artifact"),
        (directories[:2], {"production": "dpo"}, "no model is called 'dpo'; there are: base, orpo"),
        (directories[:2], {"base": "orpo"}, "a model is called so"),
    ]:
        with pytest.raises(InputError, match=said):
            of_directories(given, ServeSection(aliases=aliases))


def test_keys_beside_directories_are_of_serve(directories: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert load_serve_section(["serve.port=9000", "serve.limits.n=2"]).limits.n == 2
    with pytest.raises(InputError, match=r"unknown key 'serve\.porto'; did you mean 'port'"):
        load_serve_section(["serve.porto=1"])
    assert main(["serve", directories[0], "serve.host=0.0.0.0"]) == 2
    assert "without keys" in capsys.readouterr().err
    assert main(["serve", directories[0], "train.seed=1"]) == 2
    assert "unknown key 'train'" in capsys.readouterr().err
    assert main(["serve", directories[0], "--mode", "adapters"]) == 2


def test_logs_go_where_they_are_told_to(directories: list[str], tmp_path: Path) -> None:
    deployment = of_directories(directories[:1], ServeSection(log_dir=str(tmp_path / "logs")))
    (process,) = make_processes(deployment, deployment.engines(tmp_path))
    assert process.log == tmp_path / "logs" / "base.log"
    (tmp_path / "file").write_text("")
    deployment = of_directories(directories[:1], ServeSection(log_dir=str(tmp_path / "file" / "logs")))
    with pytest.raises(InputError, match=r"cannot be written to .*name another directory: serve\.log_dir"):
        make_processes(deployment, deployment.engines(tmp_path))
