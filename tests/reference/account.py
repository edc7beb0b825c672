"""The account that a request presents, slow and obvious. Header values are bytes, as on the wire."""

from __future__ import annotations

import base64
import binascii
import json
import re

Headers = list[tuple[bytes, bytes]]
TOKEN68 = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")
PAYLOAD_BYTES_MAX = 4096


def values(headers: Headers, name: bytes) -> list[bytes]:
    return [value.strip(b" \t") for field, value in headers if field.lower() == name]


def from_cookie(headers: Headers, name: bytes, cap: int) -> bytes:
    for value in values(headers, b"cookie"):
        for pair in value.split(b";"):
            key, equals, content = pair.strip(b" \t").partition(b"=")
            if equals and key == name:
                if len(content) >= 2 and content.startswith(b'"') and content.endswith(b'"'):
                    content = content[1:-1]
                return content[:cap]
    return b""


def decode_url(text: bytes) -> bytes | None:
    if not re.fullmatch(rb"[A-Za-z0-9_-]*", text) or len(text) % 4 == 1:
        return None
    decoded = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    return decoded if len(decoded) <= PAYLOAD_BYTES_MAX else None


def subject(payload: bytes) -> bytes:
    """The one string `sub` of a JSON object."""
    try:
        pairs = json.loads(payload.decode(), object_pairs_hook=lambda found: ("object", found))
    except ValueError:
        return b""
    if not (isinstance(pairs, tuple) and pairs[0] == "object"):
        return b""
    subjects = [value for key, value in pairs[1] if key == "sub"]
    if len(subjects) != 1 or not isinstance(subjects[0], str):
        return b""
    return subjects[0].encode("utf-8", "surrogatepass")


def credentials(headers: Headers, scheme: bytes) -> bytes | None:
    found = values(headers, b"authorization")
    if not found or found[0][: len(scheme) + 1].lower() != scheme + b" ":
        return None
    return found[0][len(scheme) :].lstrip(b" ")


def from_bearer(headers: Headers, cap: int) -> bytes:
    token = credentials(headers, b"bearer")
    if token is None or not TOKEN68.fullmatch(token):
        return b""
    parts = token.split(b".")
    if len(parts) == 3:
        payload = decode_url(parts[1])
        name = subject(payload) if payload else b""
        if name:
            return name[:cap]
    return token[-cap:] if cap else b""


def from_basic(headers: Headers, cap: int) -> bytes:
    text = credentials(headers, b"basic")
    if text is None:
        return b""
    if len(text) % 4 == 0:
        text = re.sub(rb"={1,2}$", b"", text)
    if not re.fullmatch(rb"[A-Za-z0-9+/]*", text) or len(text) % 4 == 1:
        return b""
    try:
        pair = base64.b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        return b""
    user, colon, _ = pair.partition(b":")
    return user[:cap] if colon and len(pair) <= PAYLOAD_BYTES_MAX else b""
