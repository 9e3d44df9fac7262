"""A stand-in for the hub's HTTP interface on loopback: what a client of one repository sees.

It counts what is asked of it, and can drop a connection halfway or alter a file.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

_TREE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<rev>[^/?]+)")
_INFO = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<rev>[^/?]+)")
_REFS = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/refs")
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<name>.+)")


class HubStandIn:
    """Serves folders as the revisions of one repository.

    Attributes:
        drop_after: bytes of a weight file after which the next connections break, one each.
        resume: cleared, a dropped connection first stays silent until it is set.
        altered: names of files sent with their last byte changed.
        requests: how often each kind of request came.
        bytes_sent: bytes of each file that were sent.
    """

    def __init__(self, repo: str, revisions: dict[str, Path], *, lfs: bool = True) -> None:
        self.repo, self.revisions, self.lfs = repo, revisions, lfs
        self.drop_after: list[int] = []
        self.resume = threading.Event()
        self.resume.set()
        self.altered: set[str] = set()
        self.requests: Counter[str] = Counter()
        self.bytes_sent: Counter[str] = Counter()
        self.ranges: list[str] = []
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubStandIn:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reset(self) -> None:
        self.requests.clear()
        self.bytes_sent.clear()
        self.ranges.clear()

    def commit(self, revision: str) -> str:
        return hashlib.sha1(revision.encode()).hexdigest()

    def folder(self, revision: str) -> Path | None:
        commits = {self.commit(name): path for name, path in self.revisions.items()}
        return self.revisions.get(revision) or commits.get(revision)

    def entry(self, file: Path) -> dict:
        data = file.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry = {"type": "file", "path": file.name, "size": len(data), "oid": blob}
        if self.lfs and file.suffix == ".safetensors":
            sha256 = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 134}
        return entry


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubStandIn

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = unquote(self.path.partition("?")[0])
        for kind, pattern in (("refs", _REFS), ("tree", _TREE), ("info", _INFO), ("file", _FILE)):
            if match := pattern.fullmatch(path):
                self.hub.requests[kind] += 1
                if match["repo"] != self.hub.repo:
                    return self._error(401, "RepoNotFound")
                return getattr(self, f"_{kind}")(body=body, **match.groupdict())
        return self._error(404, "EntryNotFound")

    def _refs(self, **_: object) -> None:
        names = self.hub.revisions
        refs = [
            {"name": n, "ref": f"refs/heads/{n}", "targetCommit": self.hub.commit(n)} for n in names
        ]
        self._json({"branches": refs, "converts": [], "tags": []})

    def _info(self, *, rev: str, repo: str, **_: object) -> None:
        if rev not in self.hub.revisions:
            return self._error(404, "RevisionNotFound")
        return self._json(
            {"id": repo, "modelId": repo, "sha": self.hub.commit(rev), "siblings": []}
        )

    def _tree(self, *, rev: str, **_: object) -> None:
        folder = self.hub.folder(rev)
        if folder is None:
            return self._error(404, "RevisionNotFound")
        files = [self.hub.entry(p) for p in sorted(folder.iterdir())]
        return self._json([*files, {"type": "directory", "path": "logs", "oid": "0" * 40}])

    def _file(self, *, rev: str, name: str, body: bool, **_: object) -> None:
        folder = self.hub.folder(rev)
        if folder is None:
            return self._error(404, "RevisionNotFound")
        if not (folder / name).is_file():
            return self._error(404, "EntryNotFound")
        data = (folder / name).read_bytes()
        if name in self.hub.altered:
            data = data[:-1] + bytes([data[-1] ^ 1])
        entry = self.hub.entry(folder / name)
        start, stop = 0, len(data)
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else stop, stop)
            self.hub.ranges.append(f"{name}:{asked}")
        self.send_response(206 if asked else 200)
        etag = entry.get("lfs", entry)["oid"]
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Linked-Etag", f'"{etag}"')
        self.send_header("X-Linked-Size", str(len(data)))
        self.send_header("X-Repo-Commit", self.hub.commit(rev) if len(rev) < 40 else rev)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if body:
            self._send(name, data[start:stop])

    def _send(self, name: str, data: bytes) -> None:
        drop = name.endswith(".safetensors") and bool(self.hub.drop_after)
        if drop:
            data = data[: self.hub.drop_after.pop(0)]
        self.wfile.write(data)
        self.hub.bytes_sent[name] += len(data)
        if drop:
            self.wfile.flush()
            self.hub.resume.wait(timeout=30)  # silent, while the connection stands
            self.close_connection = True  # fewer bytes than the header promised

    def _json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
