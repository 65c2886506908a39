"""What arrives on the hub is what was exported, in one commit, with a token that nobody else sees."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_stand_in import TOKEN, Hub, running_hub

from trimtab.artifacts.card import write_card
from trimtab.artifacts.digests import MANIFEST, artifact_files
from trimtab.artifacts.errors import GateError, InputError
from trimtab.artifacts.manifest import Manifest, Parent, new_artifact
from trimtab.export.push import push

NAME = "acme/tiny-orpo"


@pytest.fixture(scope="module")
def artifact(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run") / "merged"
    base = Parent(path="smollm2-135m", digest="b" * 64, kind="base")
    manifest = Manifest(kind="merged", arm="orpo", parents=[base])
    with new_artifact(directory, manifest) as partial:
        shutil.copytree(tiny_model, partial, dirs_exist_ok=True)
        write_card(partial, manifest, base="smollm2-135m")
    return directory


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stand-in speaks Git LFS only
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "no-logins"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with running_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def content(directory: Path) -> dict[str, bytes]:
    files = [*artifact_files(directory), directory / MANIFEST]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def on_hub(hub: Hub, name: str = NAME, branch: str = "main") -> dict[str, bytes]:
    tree = hub.repositories[name].branches[branch][-1]
    return {path: data for path, data in tree.items() if path != ".gitattributes"}


def test_all_files_arrive_byte_for_byte_in_one_commit(
    artifact: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    address = push(artifact, NAME)
    assert on_hub(hub) == content(artifact)
    assert len(hub.messages) == 1
    assert address and address.startswith(hub.url)
    assert hub.parts, "the largest file went in parts"
    assert all(token == f"Bearer {TOKEN}" for _, path, token in hub.requests if path.startswith("/api/"))
    assert all(token is None for _, path, token in hub.requests if path.startswith("/storage/"))
    assert TOKEN not in "".join(capsys.readouterr())
    assert not hub.repositories[NAME].private


def test_a_later_artifact_takes_the_place_of_the_earlier(artifact: Path, hub: Hub, tmp_path: Path) -> None:
    with new_artifact(tmp_path / "merged", Manifest(kind="merged", arm="dpo")) as partial:
        (partial / "notes.txt").write_text("an earlier export")
    push(tmp_path / "merged", NAME)
    push(artifact, NAME)
    assert on_hub(hub) == content(artifact)
    assert len(hub.messages) == 2


def test_another_branch_and_a_private_repository(artifact: Path, hub: Hub) -> None:
    push(artifact, NAME, private=True, revision="candidate")
    assert on_hub(hub, branch="candidate") == content(artifact)
    assert on_hub(hub) == {}
    assert hub.repositories[NAME].private


def test_dry_run_lists_and_touches_no_network(
    artifact: Path, hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert push(artifact, NAME, dry_run=True) is None
    out = capsys.readouterr().out
    assert all(name in out for name in content(artifact))
    assert not hub.requests


def test_what_inspection_refuses_is_not_pushed(artifact: Path, hub: Hub, tmp_path: Path) -> None:
    copy = tmp_path / "merged"
    shutil.copytree(artifact, copy)
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(GateError, match=r"chat_template.jinja was changed"):
        push(copy, NAME)
    assert not hub.requests


def test_files_that_no_artifact_left_are_not_removed(artifact: Path, hub: Hub) -> None:
    push(artifact, NAME)
    hub.repositories[NAME].branches["main"].append({"thesis.tex": b"mine"})
    with pytest.raises(InputError, match=r"thesis\.tex"):
        push(artifact, NAME)
    assert on_hub(hub) == {"thesis.tex": b"mine"}


def test_a_public_repository_is_not_taken_for_a_private_one(artifact: Path, hub: Hub) -> None:
    push(artifact, NAME)
    with pytest.raises(InputError, match="is public"):
        push(artifact, NAME, private=True)


def test_a_hub_that_holds_other_bytes_is_found_out(artifact: Path, hub: Hub) -> None:
    hub.corrupt = True
    with pytest.raises(GateError, match=r"does not hold what was sent: model.safetensors"):
        push(artifact, NAME)


@pytest.mark.parametrize(
    ("token", "name", "message"),
    [
        (None, NAME, "no hub token"),
        ("hf_" + "x" * 30, NAME, "status 401"),
        (TOKEN, "others/tiny", "status 403"),
        (TOKEN, "tiny", "OWNER/NAME"),
    ],
)
def test_refusals_say_what_to_do(
    artifact: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str | None, name: str, message: str
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match=message) as error:
        push(artifact, name)
    assert "\n" not in str(error.value)
    assert token is None or token not in str(error.value)
    assert not hub.messages


def test_no_network_is_said(artifact: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(InputError, match="cannot be reached"):
            push(artifact, NAME)


def test_folders_of_this_machine_in_a_manifest_are_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, path in (("plain", "sample/train"), ("telling", "/home/jane/pairs.jsonl")):
        manifest = Manifest(kind="merged", arm="dpo", parents=[Parent(path=path, digest="d" * 64, kind="data")])
        with new_artifact(tmp_path / name, manifest) as partial:
            (partial / "config.json").write_text("{}")
        push(tmp_path / name, NAME, dry_run=True)
    assert capsys.readouterr().out.count("note: manifest.json names folders of this machine") == 1
