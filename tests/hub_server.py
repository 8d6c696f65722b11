"""A hub on this machine: what Hugging Face's own client asks of one, for models in directories."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the server has, and what it was asked for."""

    models: dict[str, Path]
    """By OWNER/NAME."""
    gated: set[str] = field(default_factory=set)
    silent: bool = False
    """Takes connections and says nothing."""
    cut: str = ""
    """A file that is broken off in the middle."""
    endpoint: str = ""
    asked: list[str] = field(default_factory=list)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve on a free port of this machine."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.hub.asked.append(self.path)
        if self.hub.silent:
            time.sleep(3600)
        parts = unquote(urlparse(self.path).path).strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        name, rest = "/".join(parts[2:4] if is_api else parts[:2]), parts[4 if is_api else 2 :]
        directory = self.hub.models.get(name)
        if directory is None:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
        if name in self.hub.gated:
            return self._send(403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
        revision = rest[1] if len(rest) > 1 else "main"
        if revision not in (COMMIT, "main"):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
        if not is_api:
            return self._file(directory / "/".join(rest[2:]), body)
        files = sorted(path for path in directory.iterdir() if path.is_file())
        if rest[:1] == ["tree"]:
            said: object = [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": _oid(path)}
                for path in files
            ]
        else:
            said = {
                "id": name,
                "sha": COMMIT,
                "siblings": [{"rfilename": path.name} for path in files],
            }
        self._send(200, json.dumps(said).encode(), {"Content-Type": "application/json"}, body)

    def _file(self, path: Path, body: bool) -> None:
        if not path.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
        headers = {"ETag": f'"{_oid(path)}"', "X-Repo-Commit": COMMIT}
        self._send(200, path.read_bytes(), headers, body, cut=path.name == self.hub.cut)

    def _send(
        self, status: int, content: bytes, headers: dict[str, str], body: bool, *, cut: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True


def _oid(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
