"""What every origin of these tests answers, whatever it is written with: the same paths, the same bytes.

Owns: the bodies and the headers that come with them. Invariant: nothing here depends on time, on the machine
or on a request before, so that two answers to one request are the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from email.message import Message
from email.parser import BytesParser

SMALL = b"hello, world\n"
LARGE = bytes(range(256)) * (5 * 4096)  # 5 MiB
PIECES = [b"piece %d\n" % i * (i + 1) for i in range(20)]
TAG = '"one-5f3"'
MODIFIED = "Tue, 03 Nov 2026 10:00:00 GMT"
ZIPPED = gzip.compress(SMALL * 500, mtime=0)
STATUSES = (200, 201, 202, 400, 401, 403, 404, 405, 409, 410, 418, 422, 429, 500, 501, 502, 503, 504)
REDIRECTS = (301, 302, 303, 307, 308)
LINK = "</style.css>; rel=preload; as=style"

Headers = list[tuple[str, str]]


def small_headers() -> Headers:
    return [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("ETag", TAG),
        ("Last-Modified", MODIFIED),
        ("Cache-Control", "private, max-age=0"),
        ("Set-Cookie", "a=1; Path=/"),
        ("Set-Cookie", "b=two words; Path=/; HttpOnly"),
        ("X-Odd_Name", "kept  as it\tis"),
    ]


def echo(method: str, target: str, headers: Headers, body: bytes) -> bytes:
    """What an origin was sent, as JSON; names in lower case (WSGI knows no other)."""
    return json.dumps(
        {
            "method": method,
            "target": target,
            "headers": [[name.lower(), value] for name, value in headers],
            "body_bytes": len(body),
            "body_sha256": hashlib.sha256(body).hexdigest(),
        }
    ).encode()


def parts(content_type: str, body: bytes) -> bytes:
    """The parts of a multipart body, as JSON."""
    message: Message = BytesParser().parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    found = []
    for part in message.walk():
        if part.is_multipart():
            continue
        data = part.get_payload(decode=True)
        assert isinstance(data, bytes)
        name = part.get_param("name", header="content-disposition")
        found.append([name, part.get_filename(), len(data), hashlib.sha256(data).hexdigest()])
    return json.dumps(found).encode()


def fresh(headers: dict[str, str]) -> bool:
    """Whether the client has the small answer already (RFC 9110 13.2.2)."""
    if "if-none-match" in headers:
        return headers["if-none-match"] in (TAG, "*")
    return headers.get("if-modified-since") == MODIFIED


def part_of(value: str, length: int) -> tuple[int, int] | None:
    """First and last byte of one range; None where there is none of it (RFC 9110 14.1)."""
    first, _, last = value.removeprefix("bytes=").partition("-")
    start, end = (int(first), int(last or length - 1)) if first else (length - int(last), length - 1)
    return (start, min(end, length - 1)) if start < length else None


def plain(method: str, path: str, headers: dict[str, str], host: str) -> tuple[int, Headers, bytes]:
    """Status, headers and body for every path without streaming or a request body; Content-Length is the caller's."""
    text: Headers = [("Content-Type", "text/plain; charset=utf-8")]
    head, _, last = path.rpartition("/")
    if path == "/small":
        return (304, small_headers()[1:4], b"") if fresh(headers) else (200, small_headers(), SMALL)
    if path == "/large":
        kind: Headers = [("Content-Type", "application/octet-stream"), ("Accept-Ranges", "bytes"), ("ETag", TAG)]
        if "range" not in headers:
            return 200, kind, LARGE
        found = part_of(headers["range"], len(LARGE))
        if found is None:
            return 416, [*text, ("Content-Range", f"bytes */{len(LARGE)}")], b"no such part\n"
        start, end = found
        return 206, [*kind, ("Content-Range", f"bytes {start}-{end}/{len(LARGE)}")], LARGE[start : end + 1]
    if path == "/gzip":
        if "gzip" not in headers.get("accept-encoding", ""):
            return 200, [*text, ("Vary", "Accept-Encoding")], SMALL * 500
        return 200, [*text, ("Vary", "Accept-Encoding"), ("Content-Encoding", "gzip")], ZIPPED
    if head == "/redirect":
        return int(last), [*text, ("Location", "/echo?redirected")], b"elsewhere\n"
    if head == "/redirect-absolute":
        return int(last), [*text, ("Location", f"http://{host}/small")], b"elsewhere\n"
    if head == "/status":
        extra = [("WWW-Authenticate", 'Basic realm="x"')] if last == "401" else []
        extra += [("Retry-After", "7")] if last in ("429", "503") else []
        return int(last), [*text, *extra], b"" if last == "204" else b"as asked\n"
    if head == "/head":
        return 200, [*text, ("X-Long", "v" * int(last))], SMALL
    if head == "/fields":
        return 200, [*text, *((f"X-Field-{i}", "v" * 60) for i in range(int(last)))], SMALL
    return 404, text, b"nothing here\n"
