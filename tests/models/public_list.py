"""A public list of networks as OpenModelDB has it, made up, with tiny networks, and a server that gives both."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from realesr.models.compact import Compact
from tests.models.small_networks import small_state

SMALL = Compact(scale=2, features=4, convs=1)


def network_bytes(seed: int = 0) -> bytes:
    """A .safetensors file of a tiny network."""
    return save(small_state(SMALL, seed))


class ListServer(ThreadingHTTPServer):
    """Gives `files` by their paths, and keeps what it was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        """Path and range of each request."""
        self.breaks_after: list[int] = []
        """Bytes after which the next answers break off."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def entry(self, content: bytes, *, at: str = "net.safetensors", **changes: Any) -> dict[str, Any]:
        """Publish a file, and return its entry of the list."""
        self.files[at] = content
        file = {
            "platform": "pytorch",
            "type": "safetensors",
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "urls": [self.url(at)],
        }
        return {
            "name": "Made Up",
            "author": ["somebody", "else"],
            "license": "CC-BY-4.0",
            "tags": ["photo", "jpeg"],
            "description": "Made for tests.\nOf two lines.",
            "date": "2026-01-01",
            "architecture": "compact",
            "size": None,
            "scale": 2,
            "inputChannels": 3,
            "outputChannels": 3,
            "resources": [file | changes.pop("file", {})],
            "images": [],
        } | changes

    def publish(self, entries: Any) -> str:
        """Publish a list, and return its address."""
        self.files["models.json"] = json.dumps(entries).encode()
        return self.url("models.json")


class _Handler(BaseHTTPRequestHandler):
    server: ListServer

    def do_GET(self) -> None:
        path, wanted = self.path.lstrip("/"), self.headers["Range"]
        self.server.asked.append((path, wanted))
        if path not in self.server.files:
            return self.send_error(404)
        content = self.server.files[path]
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + self.server.breaks_after.pop(0) if start == 0 and self.server.breaks_after else len(content)
        self.wfile.write(content[start:end])
        return None

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def list_server() -> Iterator[ListServer]:
    with ListServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def list_file(folder: Path, entries: Any) -> Path:
    path = folder / "list.json"
    path.write_text(json.dumps(entries))
    return path
