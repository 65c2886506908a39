"""An artifact to a hub repository: in one commit, only what inspection passes, and checked there by digest."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.artifacts.digests import MANIFEST, artifact_files, sha256
from trimtab.artifacts.errors import GateError, InputError
from trimtab.artifacts.resources import MIB
from trimtab.export.inspect import inspect

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_LOCAL_PATH = re.compile(r'"((?:/|~)[^"\n]+)"')
_KEPT_THERE = {".gitattributes"}


@dataclass(frozen=True)
class Upload:
    """One file that goes: name in the repository, bytes, SHA-256."""

    name: str
    path: Path
    size: int
    digest: str


def push(
    directory: Path, repository: str, *, private: bool = False, revision: str = "main", dry_run: bool = False
) -> str | None:
    """Make ``repository`` (OWNER/NAME) hold the artifact in ``directory``; the commit's address, None if dry.

    The token is the hub client's own: ``HF_TOKEN`` or its login. The hub is ``HF_ENDPOINT``, by default
    huggingface.co. GateError for an artifact that inspection finds fault with, or if the hub then names another
    digest; InputError for a bad name, no token, no permission or no network.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise InputError(f"{repository!r} is no hub repository; give OWNER/NAME, e.g. acme/support-orpo-gptq")
    uploads = _uploads(directory)
    for upload in uploads:
        print(f"{upload.digest}  {upload.size:>13,}  {upload.name}")
    print(f"{len(uploads)} files, {sum(u.size for u in uploads) / MIB:.1f} MiB, for {repository}, {revision}")
    for name in _local_paths(directory):
        print(f"note: {name} names folders of this machine; whoever can read the repository will see them")
    if dry_run:
        return None
    with _plain_errors(repository):
        address = _commit(uploads, repository, private, revision)
    print(f"pushed, and the hub names the same digests: {address}")
    return address


def _uploads(directory: Path) -> list[Upload]:
    """What goes: the manifest's files and the manifest. GateError names what inspection found."""
    inspection = inspect(directory)
    if inspection.manifest.kind == "report":
        raise InputError(
            f"{directory} is a report, no model; give an adapter, merged, gptq, nf4 or gguf directory"
        )
    if inspection.faults:
        raise GateError(
            f"{directory} is not what was exported: {'; '.join(inspection.faults)}; "
            "nothing was pushed, make it again"
        )
    sums = inspection.manifest.files | {MANIFEST: sha256(directory / MANIFEST)}
    paths = [*artifact_files(directory), directory / MANIFEST]
    names = [path.relative_to(directory).as_posix() for path in paths]
    return [Upload(n, p, p.stat().st_size, sums[n]) for n, p in zip(names, paths, strict=True)]


def _local_paths(directory: Path) -> list[str]:
    """Files whose text names absolute or home paths."""
    files = [directory / name for name in (MANIFEST, "adapter_config.json")]
    return [f.name for f in files if f.is_file() and _names_folders(f.read_text(encoding="utf-8"))]


def _names_folders(text: str) -> bool:
    probes = text.find('"probe"')  # conversations are no paths
    return bool(_LOCAL_PATH.search(text[:probes] if probes >= 0 else text))


def _commit(uploads: list[Upload], repository: str, private: bool, revision: str) -> str:
    """One commit after which the repository holds these files and no others; its address."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    if not get_token():
        raise InputError("no hub token; set HF_TOKEN, or log in once with `hf auth login`")
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, library_name="trimtab")
    api.create_repo(repository, private=private or None, exist_ok=True)
    if private and not api.model_info(repository).private:
        raise InputError(f"{repository} exists and is public; make it private on the hub, or give another name")
    if revision != "main":
        api.create_branch(repository, branch=revision, exist_ok=True)
    head = api.model_info(repository, revision=revision)
    there = {sibling.rfilename for sibling in head.siblings or []} - _KEPT_THERE
    extra = sorted(there - {upload.name for upload in uploads})
    if extra and MANIFEST not in there and extra != ["README.md"]:
        raise InputError(
            f"{repository}, {revision}, holds what no artifact left there: {', '.join(extra[:5])}; "
            "give an empty repository, or another branch: --revision BRANCH"
        )
    operations = [CommitOperationAdd(path_in_repo=u.name, path_or_fileobj=u.path) for u in uploads]
    done = api.create_commit(
        repository,
        [*operations, *(CommitOperationDelete(path_in_repo=name) for name in extra)],
        commit_message="Trimtab artifact",
        revision=revision,
        parent_commit=head.sha,
    )
    _check(api, uploads, repository, done.oid)
    return str(done.commit_url)


def _check(api: Any, uploads: list[Upload], repository: str, revision: str) -> None:
    """GateError unless the hub has each file, by SHA-256 (large ones) or git's own sum (small ones)."""
    names = [upload.name for upload in uploads]
    there = {entry.path: entry for entry in api.get_paths_info(repository, names, revision=revision)}
    wrong = [upload.name for upload in uploads if not _arrived(upload, there.get(upload.name))]
    if wrong:
        raise GateError(f"{repository} does not hold what was sent: {', '.join(wrong)}; push again")


def _arrived(upload: Upload, entry: Any) -> bool:
    from huggingface_hub.utils.sha import git_hash

    if entry is None or entry.lfs:
        return entry is not None and bool(entry.lfs.sha256 == upload.digest)
    content = upload.path.read_bytes()
    return hashlib.sha256(content).hexdigest() == upload.digest and git_hash(content) == entry.blob_id


@contextmanager
def _plain_errors(repository: str) -> Iterator[None]:
    """Faults of the way to the hub as one line; what the hub's client says of a request holds no token."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    try:
        yield
    except (OfflineModeIsEnabled, HTTPError, RuntimeError, ValueError) as error:
        if isinstance(error, InputError | GateError):
            raise
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        if isinstance(cause, HfHubHTTPError):
            raise InputError(_refused(repository, cause)) from error
        if isinstance(cause, OfflineModeIsEnabled | HTTPError):
            raise InputError(
                f"the hub cannot be reached ({type(cause).__name__}); look at the network, HF_ENDPOINT and "
                "HF_HUB_OFFLINE, then push again: what arrived is not sent twice"
            ) from error
        if isinstance(cause, ValueError):  # of the card's front matter, or of an answer that is no hub's
            raise InputError(f"the hub does not take it: {str(cause).strip()}") from error
        raise


def _refused(repository: str, error: Any) -> str:
    status = error.response.status_code
    said = (error.server_message or str(error).strip().splitlines()[-1])[:200]
    if status in (401, 403, 404):
        return (
            f"the hub refuses to write to {repository} (status {status}: {said}); "
            "give a token that may write there (HF_TOKEN, or `hf auth login`)"
        )
    if status in (409, 412):
        return f"{repository} was changed by someone else meanwhile (status {status}); push again"
    return f"the hub did not take the push (status {status}: {said}); push again: what arrived is not sent twice"
