"""A W&B server small enough for a test, on loopback; and a reader of offline run files.

The stub answers the three calls that a run needs and keeps what it was sent. Every request is counted, so that "no network at
all" is a claim a test can make.
"""

import gzip
import json
import struct
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BLOCK = 32768


class Stub:
    """A server; `asked` lists every request, `history` the logged rows."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.history: list[dict[str, Any]] = []
        self.queries: list[dict[str, Any]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                stub.asked.append(self.path)
                answer = stub.answer(self.path, json.loads(body or b"{}"))
                self._send(json.dumps(answer).encode())

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                stub.asked.append(self.path)
                self._send(b"{}")

            def do_GET(self) -> None:
                stub.asked.append(self.path)
                self._send(b"{}")

            def do_CONNECT(self) -> None:  # somebody took this for a proxy
                stub.asked.append(f"CONNECT {self.path}")
                self.send_error(502)

            def _send(self, content: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path.endswith("/file_stream"):
            rows = body.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            self.history += [json.loads(row) for row in rows]
            return {"exitcode": None, "limits": {}}
        self.queries.append(body)
        query, given = body.get("query", ""), body.get("variables", {})
        if "CreateRunFiles" in query or "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/put/{name}"} for name in given.get("files", [])]
            return {"data": {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}}
        if "upsertBucket" in query:
            project = {"id": "p", "name": "sigma", "entity": {"id": "e", "name": "team"}}
            name = given.get("name") or "r"
            bucket = {
                "id": "r", "name": name, "displayName": given.get("displayName") or name, "description": None,
                "config": given.get("config") or "{}", "sweepName": None, "project": project, "historyLineCount": 0,
            }  # fmt: skip
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
        viewer = {"id": "u", "entity": "team", "username": "me", "flags": "{}", "teams": {"edges": []}}
        return {
            "data": {"viewer": viewer, "serverInfo": {"cliVersionInfo": {}, "latestLocalVersionInfo": None}}
        }


def read_offline(path: Path) -> Iterator[Any]:
    """Records of a finished offline run: a header of 7 bytes, then blocks of 32 KiB with <crc, length, type> before each part."""
    from wandb.proto import wandb_internal_pb2 as pb

    raw, at, whole = path.read_bytes(), 7, b""
    assert raw[:4] == b":W&B"
    while at + 7 <= len(raw):
        left = BLOCK - at % BLOCK
        if left < 7:
            at += left
            continue
        crc, size, kind = struct.unpack("<IHB", raw[at : at + 7])
        if kind == 0:
            at += left
            continue
        part, at = raw[at + 7 : at + 7 + size], at + 7 + size
        assert zlib.crc32(part, zlib.crc32(bytes([kind]))) == crc
        whole += part
        if kind in (1, 4):
            record = pb.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record
