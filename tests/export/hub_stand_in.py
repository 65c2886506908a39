"""The hub's API on this machine, as far as a push needs it: repositories in memory, large files by Git LFS."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

TOKEN = "hf_" + "t" * 30
OWNER = "acme"
LARGE = 64 << 10  # bytes from which a file goes by LFS
PART = 4 << 20


@dataclass
class Repository:
    """Branches, each a list of commits; a commit is the whole tree: bytes by name."""

    private: bool
    branches: dict[str, list[dict[str, bytes]]] = field(
        default_factory=lambda: {"main": [{".gitattributes": b"*.safetensors filter=lfs\n"}]}
    )


@dataclass
class Hub:
    """What the server holds and has seen. ``corrupt``: a byte of each large file is turned over on arrival."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    corrupt: bool = False


def commit_id(tree: dict[str, bytes]) -> str:
    """A commit's id, from its content."""
    names = "".join(f"{name} {hashlib.sha1(tree[name]).hexdigest()}\n" for name in sorted(tree))  # noqa: S324
    return hashlib.sha1(names.encode()).hexdigest()  # noqa: S324


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a free port of the loopback while the block runs."""
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, method: str) -> None:
        path, body = unquote(urlparse(self.path).path), self._body()
        self.hub.requests.append((method, path, self.headers.get("Authorization")))
        if path.startswith("/storage/"):  # signed addresses: no token there
            status, answer = self._store(method, path, body)
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            status, answer = 401, {"error": "Invalid credentials"}
        else:
            status, answer = self._api(path, body)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status >= 400:
            self.send_header("X-Error-Message", answer["error"])
        if method == "PUT":
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.end_headers()
        self.wfile.write(content)

    def _store(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        oid, _, number = path.removeprefix("/storage/").partition("/")
        if method == "PUT" and number:
            self.hub.parts[oid, int(number)] = body
        else:
            if method == "POST":  # the parts are complete
                body = b"".join(self.hub.parts[oid, part["partNumber"]] for part in json.loads(body)["parts"])
            assert hashlib.sha256(body).hexdigest() == oid
            self.hub.objects[oid] = bytes([body[0] ^ 1]) + body[1:] if self.hub.corrupt else body
        return 200, {}

    def _api(self, path: str, body: bytes) -> tuple[int, Any]:
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if match := re.fullmatch(r"/([\w-]+/[\w.-]+)\.git/info/lfs/objects/batch", path):
            return 200, {"transfer": "basic", "objects": [self._object(o) for o in json.loads(body)["objects"]]}
        match = re.fullmatch(r"/api/models/([\w-]+/[\w.-]+)(?:/([\w-]+)/(.+))?", path)
        name, what, revision = match.groups() if match else ("", None, None)
        if name not in self.hub.repositories:
            return 404, {"error": "Repository not found"}
        return self._repository(name, what, revision or "main", body)

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        if wanted["organization"] != OWNER:
            return 403, {"error": "You have no rights to this namespace"}
        name = f"{OWNER}/{wanted['name']}"
        if name in self.hub.repositories:
            return 409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}
        self.hub.repositories[name] = Repository(private=wanted.get("visibility") == "private")
        return 200, {"url": f"{self.hub.url}/{name}"}

    def _object(self, wanted: dict[str, Any]) -> dict[str, Any]:
        oid, size = wanted["oid"], wanted["size"]
        if oid in self.hub.objects:
            return {"oid": oid, "size": size}
        address = f"{self.hub.url}/storage/{oid}"
        upload: dict[str, Any] = {"href": address}
        if size > PART:
            count = -(-size // PART)
            upload["header"] = {"chunk_size": str(PART)} | {str(n): f"{address}/{n}" for n in range(1, count + 1)}
        return {"oid": oid, "size": size, "actions": {"upload": upload}}

    def _repository(self, name: str, what: str | None, revision: str, body: bytes) -> tuple[int, Any]:
        repository = self.hub.repositories[name]
        if what == "branch":
            if revision in repository.branches:
                return 409, {"error": "Reference already exists"}
            repository.branches[revision] = list(repository.branches["main"])
            return 200, {}
        trees = {commit_id(commits[-1]): commits[-1] for commits in repository.branches.values()}
        tree = repository.branches[revision][-1] if revision in repository.branches else trees[revision]
        if what in (None, "revision"):
            siblings = [{"rfilename": file} for file in tree]
            return 200, {"id": name, "private": repository.private, "sha": commit_id(tree), "siblings": siblings}
        if what == "preupload":
            return 200, {
                "files": [
                    {"path": f["path"], "uploadMode": "lfs" if f["size"] > LARGE else "regular"}
                    | {"shouldIgnore": False}
                    for f in json.loads(body)["files"]
                ]
            }
        if what == "paths-info":
            return 200, [_entry(path, tree[path]) for path in parse_qs(body.decode())["paths"] if path in tree]
        assert what == "commit"
        return self._commit(name, repository.branches[revision], body)

    def _commit(self, name: str, commits: list[dict[str, bytes]], body: bytes) -> tuple[int, Any]:
        lines = [json.loads(line) for line in body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, commit_id(commits[-1])):
            return 412, {"error": "A commit has happened since"}
        tree = dict(commits[-1])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                tree[value["path"]] = self.hub.objects[value["oid"]]
            else:
                del tree[value["path"]]
        commits.append(tree)
        self.hub.messages.append(header["summary"])
        oid = commit_id(tree)
        return 200, {"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid}


def _entry(path: str, content: bytes) -> dict[str, Any]:
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324
    entry = {"type": "file", "path": path, "size": len(content), "oid": git}
    if len(content) > LARGE:
        digest = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
    return entry
