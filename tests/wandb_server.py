"""A small W&B server: enough of its API for the real client to run online and for `wandb sync`.

It keeps what it is sent, and it can fail in the ways in which servers do.
"""

import gzip
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote

ENTITY = "me"


@dataclass
class StoredRun:
    """What the server holds of one run."""

    name: str
    project: str
    fields: dict[str, Any] = field(default_factory=dict)
    """The variables of its UpsertBucket requests: groupName, jobType, tags, displayName, ..."""

    lines: dict[str, dict[int, str]] = field(default_factory=dict)
    """Streamed files: name -> offset -> line."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Uploaded files."""

    exit_code: int | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        """Rows by step, as W&B keeps them: one that is sent again takes the place of itself."""
        lines = self.lines.get("wandb-history.jsonl", {})
        rows = [json.loads(lines[offset]) for offset in sorted(lines)]
        by_step = {row["_step"]: row for row in rows}
        return [by_step[step] for step in sorted(by_step)]

    @property
    def summary(self) -> dict[str, Any]:
        lines = self.lines.get("wandb-summary.json", {})
        return json.loads(lines[max(lines)]) if lines else {}

    @property
    def config(self) -> dict[str, Any]:
        config = json.loads(self.fields.get("config") or "{}")
        return {key: entry["value"] for key, entry in config.items()}


@dataclass
class Fault:
    """How the server misbehaves; the default is not at all."""

    status: int = 200
    """429, 500, ...: the answer to every request, or to uploads alone (`only_uploads`)."""

    only_uploads: bool = False
    """Whether runs begin well, and status and delay meet history, summary and files."""

    only_path: str = ""
    """What is in the path of the requests that status and delay meet."""

    delay_s: float = 0.0
    """Waited before an answer, in seconds."""

    dies_after: int | None = None
    """After so many requests every connection is closed without an answer."""


class WandbServer:
    """Runs by id, and how many requests came; `fault` may be changed at any time."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.url = ""
        self.runs: dict[str, StoredRun] = {}
        self.views: list[dict[str, Any]] = []
        """Saved workspaces: the variables of their UpsertView requests."""
        self.keys: set[str] = set()
        """Authorization headers that were sent."""
        self.requests: list[str] = []
        self.on_request: Callable[[str], None] = lambda _: None
        """Called with the path of every request."""
        self._lock = threading.Lock()

    def counted(self, request: str) -> int:
        with self._lock:
            self.requests.append(request)
            return len(self.requests)

    def graphql(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """The answer to a GraphQL request."""
        named = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
        operation = asked.get("operationName") or (named[1] if named else "")
        variables = asked.get("variables") or {}
        with self._lock:
            self.requests[-1] += f" {operation}"
            answer = getattr(self, f"_answer_{operation}", None)
            if answer is None:
                return 200, {"data": None, "errors": [{"message": f"unknown {operation}"}]}
            return 200, {"data": answer(variables)}

    def _answer_Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        viewer = {"id": "u", "entity": ENTITY, "username": ENTITY, "flags": "{}", "admin": False}
        return {"viewer": viewer | {"teams": {"edges": []}}}

    def _answer_ServerFeaturesQuery(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _answer_RunResumeStatus(self, asked: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(asked["name"])
        if run is None:
            return {"model": {"bucket": None}}
        history = run.lines.get("wandb-history.jsonl", {})
        bucket = {
            "name": run.name,
            "id": f"id-{run.name}",
            "config": run.fields.get("config") or "{}",
            "tags": run.fields.get("tags") or [],
            "historyLineCount": len(history),
            "eventsLineCount": 0,
            "logLineCount": 0,
            "historyTail": json.dumps([history[max(history)]] if history else []),
            "eventsTail": "[]",
            "summaryMetrics": json.dumps(run.summary),
            "wandbConfig": '{"t": 1}',
        }
        return {
            "model": {"id": "p", "name": run.project, "entity": {"name": ENTITY}, "bucket": bucket}
        }

    def _answer_UpsertBucket(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = asked.get("name") or asked["id"].removeprefix("id-")
        inserted = name not in self.runs
        run = self.runs.setdefault(name, StoredRun(name, asked.get("project") or ""))
        run.fields |= {key: value for key, value in asked.items() if value is not None}
        return {
            "upsertBucket": {
                "inserted": inserted,
                "bucket": {
                    "id": f"id-{name}",
                    "name": name,
                    "displayName": run.fields.get("displayName") or name,
                    "description": "",
                    "config": run.fields.get("config") or "{}",
                    "sweepName": None,
                    "historyLineCount": len(run.lines.get("wandb-history.jsonl", {})),
                    "project": {
                        "id": "p",
                        "name": run.project,
                        "entity": {"id": "e", "name": ENTITY},
                    },
                },
            }
        }

    def _answer_UpsertView2(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.views.append(asked)
        view = {"id": f"view-{len(self.views)}", "name": asked["name"]}
        return {"upsertView": {"view": view, "inserted": True}}

    def _answer_CreateRunFiles(self, asked: dict[str, Any]) -> dict[str, Any]:
        run = asked["run"]
        files = [
            {"name": name, "uploadUrl": f"{self.url}/storage/{run}/{quote(name, safe='')}"}
            for name in asked["files"]
        ]
        created = {"runID": f"id-{run}", "uploadHeaders": [], "files": files}
        return {"createRunFiles": created}

    def stream(self, run: str, sent: dict[str, Any]) -> None:
        """Keep streamed lines at the offsets that they are sent for."""
        with self._lock:
            stored = self.runs[run]
            for name, part in sent.get("files", {}).items():
                lines = stored.lines.setdefault(name, {})
                lines |= dict(enumerate(part["content"], start=part["offset"]))
            if sent.get("complete"):
                stored.exit_code = sent.get("exitcode")

    def upload(self, run: str, name: str, content: bytes) -> None:
        with self._lock:
            self.runs[run].files[name] = content


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wandb: WandbServer

    def do_GET(self) -> None:
        self._serve(b"")

    def do_PUT(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers["Content-Encoding"] == "gzip":
            sent = gzip.decompress(sent)
        self._serve(sent)

    def _serve(self, sent: bytes) -> None:
        server, fault = self.wandb, self.wandb.fault
        number = server.counted(f"{self.command} {self.path}")
        server.on_request(self.path)
        if self.headers["Authorization"]:
            server.keys.add(self.headers["Authorization"])
        upload = self.path != "/graphql" and self.command != "GET"
        meant = (upload or not fault.only_uploads) and fault.only_path in self.path
        if meant:
            time.sleep(fault.delay_s)
        if fault.dies_after is not None and number > fault.dies_after:
            self.close_connection = True
            return
        if fault.status != 200 and meant:
            self._reply(fault.status, {"error": "as told"})
            return
        self._reply(*self._answer(sent))

    def _answer(self, sent: bytes) -> tuple[int, dict[str, Any]]:
        if self.path == "/graphql":
            return self.wandb.graphql(json.loads(sent))
        if streamed := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            self.wandb.stream(streamed[1], json.loads(sent))
        elif stored := re.fullmatch(r"/storage/([^/]+)/(.+)", self.path):
            self.wandb.upload(stored[1], unquote(stored[2]), sent)
        return 200, {}

    def _reply(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """A client that has gone is no news."""


@contextmanager
def wandb_server(fault: Fault | None = None) -> Iterator[WandbServer]:
    """A server on a free port of this machine; ended at the end of the block."""
    server = WandbServer(fault or Fault())
    handler = type("Handler", (_Handler,), {"wandb": server})
    http = _QuietServer(("127.0.0.1", 0), handler)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
