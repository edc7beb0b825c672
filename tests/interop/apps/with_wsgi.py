"""shapes.py as a WSGI application, for gunicorn. ORIGIN_BOOT_S: seconds before it is ready to answer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from tests.interop.apps import shapes

time.sleep(float(os.environ.get("ORIGIN_BOOT_S", "0")))


def reason(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


def read_all(source: Any) -> bytes:
    pieces = []
    while piece := source.read(65536):
        pieces.append(piece)
    return b"".join(pieces)


def streamed(pieces: list[bytes], pause_s: float) -> Iterable[bytes]:
    for piece in pieces:
        yield piece
        if pause_s:
            time.sleep(pause_s)


def application(environ: dict[str, Any], start: Callable[[str, shapes.Headers], Any]) -> Iterable[bytes]:
    path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
    headers = {name[5:].replace("_", "-").lower(): str(v) for name, v in environ.items() if name.startswith("HTTP_")}
    if "CONTENT_TYPE" in environ:
        headers["content-type"] = environ["CONTENT_TYPE"]
    if environ.get("CONTENT_LENGTH"):
        headers["content-length"] = environ["CONTENT_LENGTH"]
    if path in ("/echo", "/upload"):
        body = read_all(environ["wsgi.input"])
        target = environ["RAW_URI"]
        made = (
            shapes.echo(method, target, list(headers.items()), body)
            if path == "/echo"
            else shapes.parts(headers["content-type"], body)
        )
        start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(made)))])
        return [made]
    if path in ("/chunked", "/drip"):
        start("200 OK", [("Content-Type", "text/plain")])
        return streamed(shapes.PIECES, 0.01 if path == "/drip" else 0)
    status, pairs, body = shapes.plain(method, path, headers, environ["HTTP_HOST"])
    if status not in (204, 304):
        pairs.append(("Content-Length", str(len(body))))
    start(reason(status), pairs)
    return [] if method == "HEAD" else [body]
