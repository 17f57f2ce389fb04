"""A Hub on the loopback, on the standard library alone: what pushing and loading by id need of the real one's HTTP API.

with HubServer() as hub:
    subprocess.run([...], env={**os.environ, **hub.environment(home)})
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

WRITER, READER = "hf_" + "w" * 34, "hf_" + "r" * 34
"""Tokens of somebody who may write to everything, and of somebody who may read what is public."""
LFS_FROM = 50_000
"""Bytes from which a file goes through LFS; the real Hub has 10 MB for text, and anything for safetensors."""

Files = dict[str, bytes]


@dataclass
class Repository:
    """Commits by hash, in order, and branches."""

    private: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Files, branch: str) -> str:
        sha = hashlib.sha1(f"{len(self.commits)} {sorted(files)} {id(self)}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def at(self, revision: str) -> tuple[str, Files]:
        sha = self.branches.get(revision, revision)
        if sha not in self.commits:
            raise Answer(404, "RevisionNotFound")
        return sha, self.commits[sha]


class Answer(Exception):  # noqa: N818 - what the server says
    """An answer that is not 200."""

    def __init__(self, status: int, code: str | None = None, message: str | None = None, **headers: str) -> None:
        super().__init__(status)
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": message, **headers}


class HubServer:
    """Serves from a thread.

    Attributes:
        repositories: by type and id, such as `("model", "reczoo/recbase-mini")`.
        requests: verb and path, in order.
        unknown: those that it does not speak.
        refuse_uploads: answer LFS uploads with an error, as a store does whose link has expired.
        on_upload: called when an LFS upload arrives, before it is taken.
    """

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.unknown: list[tuple[str, str]] = []
        self.refuse_uploads = False
        self.on_upload: Callable[[], None] = lambda: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Any, token: str | None = WRITER) -> dict[str, str]:
        """What a process needs to take this for the Hub."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": token or "",
            # Uploads by xet go to a server of their own with a protocol of its own, written in Rust.
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def files(self, repo_id: str, revision: str = "main", *, repo_type: str = "model") -> Files:
        """What a repository holds."""
        return self.repositories[repo_type, repo_id].at(revision)[1]

    # ---- answers -----------------------------------------------------------------------------------------------------

    def answer(self, verb: str, path: str, query: dict[str, list[str]], data: bytes, token: str | None) -> Any:
        """JSON, or bytes with headers.

        Raises:
            Answer: the status is not 200.
        """
        if token is not None and token not in (WRITER, READER):
            raise Answer(401, message="Invalid credentials in Authorization header")
        for pattern, method in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and verb in method.split("_")[0].upper().replace("READ", "GET HEAD").split():
                return getattr(self, method)(*found.groups(), query=query, data=data, token=token)
        self.unknown.append((verb, path))
        raise Answer(404, message=f"the loopback Hub does not speak {verb} {path}")

    def read_nothing(self, **_: Any) -> Any:
        return {}

    def get_whoami(self, token: str | None, **_: Any) -> Any:
        if token is None:
            raise Answer(401)
        role = "write" if token == WRITER else "read"
        return {"type": "user", "name": "ann", "orgs": [{"name": "reczoo"}], "auth": {"accessToken": {"role": role}}}

    def post_create(self, data: bytes, token: str | None, **_: Any) -> Any:
        asked = json.loads(data)
        key = asked.get("type", "model"), f"{asked.get('organization') or 'ann'}/{asked['name']}"
        self._require_writer(token)
        if key in self.repositories:
            raise Answer(409)
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.repositories[key] = Repository(private)
        self.repositories[key].commit({".gitattributes": b"*.safetensors filter=lfs\n"}, "main")
        return {"url": f"{self.url}/{key[1]}", "name": key[1], "id": key[1]}

    def delete_repository(self, data: bytes, token: str | None, **_: Any) -> Any:
        asked = json.loads(data)
        self._require_writer(token)
        del self.repositories[asked.get("type", "model"), f"{asked.get('organization') or 'ann'}/{asked['name']}"]
        return {}

    def post_validation(self, **_: Any) -> Any:
        return {"errors": [], "warnings": []}

    def post_branch(self, kind: str, repo_id: str, branch: str, token: str | None, **_: Any) -> Any:
        repository = self._writable(kind, repo_id, token)
        repository.branches[branch] = repository.branches["main"]
        return {}

    def delete_branch(self, kind: str, repo_id: str, branch: str, token: str | None, **_: Any) -> Any:
        del self._writable(kind, repo_id, token).branches[branch]
        return {}

    def post_preupload(self, kind: str, repo_id: str, _branch: str, data: bytes, token: str | None, **_: Any) -> Any:
        self._writable(kind, repo_id, token)

        def mode(file: dict[str, Any]) -> str:
            return "lfs" if file["size"] >= LFS_FROM or file["path"].endswith(".safetensors") else "regular"

        files = json.loads(data)["files"]
        return {"files": [{"path": file["path"], "uploadMode": mode(file), "shouldIgnore": False} for file in files]}

    def post_batch(self, prefix: str | None, repo_id: str, data: bytes, token: str | None, **_: Any) -> Any:
        self._writable((prefix or "models/")[:-1], repo_id, token)
        objects = [{"oid": asked["oid"], "size": asked["size"]} for asked in json.loads(data)["objects"]]
        for wanted in objects:
            if wanted["oid"] not in self.blobs:
                wanted["actions"] = {"upload": {"href": f"{self.url}/lfs/{wanted['oid']}"}}
        return {"transfer": "basic", "objects": objects}

    def put_blob(self, oid: str, data: bytes, **_: Any) -> Any:
        self.on_upload()
        if self.refuse_uploads:
            raise Answer(403, message="Request has expired")
        if hashlib.sha256(data).hexdigest() != oid:
            raise Answer(400, message="the bytes do not have this hash")
        self.blobs[oid] = data
        return {}

    def post_commit(self, kind: str, repo_id: str, branch: str, data: bytes, token: str | None, **_: Any) -> Any:
        repository = self._writable(kind, repo_id, token)
        head, files = repository.at(branch)
        files = dict(files)
        for line in data.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header" and value.get("parentCommit", head) != head:
                raise Answer(412, message="the branch has moved since")
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        sha = repository.commit(files, branch)
        return {"commitUrl": f"{self.url}/{repo_id}/commit/{sha}", "commitOid": sha, "success": True}

    def read_info(self, kind: str, repo_id: str, revision: str | None, token: str | None, **_: Any) -> Any:
        repository = self._readable(kind, repo_id, token)
        sha, files = repository.at(revision or "main")
        siblings = [{"rfilename": name, **self._lfs(content)} for name, content in files.items()]
        return {"id": repo_id, "sha": sha, "private": repository.private, "tags": [], "siblings": siblings}

    def read_tree(self, kind: str, repo_id: str, revision: str, folder: str | None, token: str | None, **_: Any) -> Any:
        sha, files = self._readable(kind, repo_id, token).at(revision)
        within = f"{folder.rstrip('/')}/" if folder else ""
        rows = [
            {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for name, content in files.items()
            if name.startswith(within)
        ]
        if within and not rows:
            raise Answer(404, "EntryNotFound", **{"X-Repo-Commit": sha})
        return rows

    def post_paths(self, kind: str, repo_id: str, revision: str, data: bytes, token: str | None, **_: Any) -> Any:
        _, files = self._readable(kind, repo_id, token).at(revision)
        fields = parse_qs(data.decode()) if not data.startswith(b"{") else json.loads(data)
        return [
            {"type": "file", "path": name, "size": len(files[name]), "oid": hashlib.sha1(files[name]).hexdigest()}
            for name in fields["paths"]
            if name in files
        ]

    def read_file(self, prefix: str | None, repo_id: str, revision: str, name: str, token: str | None, **_: Any) -> Any:
        sha, files = self._readable((prefix or "models/")[:-1], repo_id, token).at(revision)
        if name not in files:
            raise Answer(404, "EntryNotFound", **{"X-Repo-Commit": sha})
        tag = hashlib.sha256(files[name]).hexdigest()
        return files[name], {"X-Repo-Commit": sha, "ETag": f'"{tag}"', "Content-Type": "application/octet-stream"}

    def _lfs(self, content: bytes) -> dict[str, Any]:
        sha = hashlib.sha256(content).hexdigest()
        return {"lfs": {"sha256": sha, "size": len(content), "pointerSize": 134}} if sha in self.blobs else {}

    # ---- who may -----------------------------------------------------------------------------------------------------

    def _readable(self, kind: str, repo_id: str, token: str | None) -> Repository:
        repository = self.repositories.get((kind.removesuffix("s"), repo_id))
        if repository is None or (repository.private and token != WRITER):
            # The real Hub does not tell those who may not read whether there is anything.
            raise Answer(404 if token else 401, "RepoNotFound")
        return repository

    def _writable(self, kind: str, repo_id: str, token: str | None) -> Repository:
        self._require_writer(token)
        return self._readable(kind, repo_id, token)

    @staticmethod
    def _require_writer(token: str | None) -> None:
        if token != WRITER:
            raise Answer(403 if token else 401, message="this token may not write")


_ID = r"([^/]+/[^/]+)"
_API = rf"/api/(models|datasets)/{_ID}"
_ROUTES = (
    (r"/|/api/agent-harnesses", "read_nothing"),  # datasets looks whether there is a network; a registry of agents
    (r"/api/whoami-v2", "get_whoami"),
    (r"/api/repos/create", "post_create"),
    (r"/api/repos/delete", "delete_repository"),
    (r"/api/validate-yaml", "post_validation"),
    (rf"{_API}/branch/(.+)", "post_branch"),
    (rf"{_API}/branch/(.+)", "delete_branch"),
    (rf"{_API}/preupload/(.+)", "post_preupload"),
    (rf"/(datasets/)?{_ID}\.git/info/lfs/objects/batch", "post_batch"),
    (r"/lfs/([0-9a-f]{64})", "put_blob"),
    (rf"{_API}/commit/(.+)", "post_commit"),
    (rf"{_API}(?:/revision/(.+))?", "read_info"),
    (rf"{_API}/tree/([^/]+)(?:/(.*))?", "read_tree"),
    (rf"{_API}/paths-info/([^/]+)", "post_paths"),
    (rf"/(datasets/)?{_ID}/resolve/([^/]+)/(.+)", "read_file"),
)
"""Patterns of paths and the methods that answer; a method's name begins with its verb, `read` is GET and HEAD."""


def _handler_of(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:  # the base class writes to standard error
            pass

        def handle_any(self) -> None:
            url = urlsplit(self.path)
            path, data = unquote(url.path), self._body()
            hub.requests.append((self.command, path))
            bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
            try:
                found = hub.answer(self.command, path, parse_qs(url.query), data, bearer or None)
                body, headers = found if isinstance(found, tuple) else (json.dumps(found).encode(), {})
                self._reply(200, body, {"Content-Type": "application/json", **headers})
            except Answer as answer:
                self._reply(answer.status, b"{}", {key: value for key, value in answer.headers.items() if value})

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data

        def _reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

    return Handler
