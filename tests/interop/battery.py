"""The requests that every client makes, and that every origin is asked, straight and through the gateway."""

from __future__ import annotations

from tests.interop.apps import shapes
from tests.interop.same import Call

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
BYTES = {"Content-Type": "application/octet-stream"}
FILES = {"note": ("note.txt", b"a small file\n"), "picture": ("bild \u00fc.png", shapes.LARGE[: 700 * 1024 + 3])}


def of_any_origin() -> list[Call]:
    """What all origins answer (shapes.py, nginx from files), but for what only some programs do."""
    return [
        Call("small", "/small"),
        Call("large", "/large"),
        Call("head", "/small", "HEAD"),
        Call("head-large", "/large", "HEAD"),
        Call("not-modified", "/small", headers={"If-None-Match": shapes.TAG}),
        Call("modified", "/small", headers={"If-None-Match": '"another"'}),
        Call("range", "/large", headers={"Range": "bytes=100-70099"}),
        *(Call(f"status-{status}", f"/status/{status}") for status in (204, *shapes.STATUSES)),
        *(Call(f"redirect-{status}", f"/redirect/{status}") for status in shapes.REDIRECTS),
        Call("absolute", "/redirect-absolute/302"),
        Call("long-head", "/head/8000"),
        Call("many-fields", "/fields/90"),
        Call("lost", "/nowhere/at%20all?x=1"),
    ]


def of_applications() -> list[Call]:
    """What takes a program that reads the request."""
    return [
        Call("echo", "/echo?a=%20b&c=/x%2Fy&empty=&d=%C3%A9"),
        Call("form", "/echo", "POST", FORM, b"a=1&b=2"),
        Call("post-empty", "/echo", "POST", FORM, b""),
        Call("post-large", "/echo", "POST", BYTES, shapes.LARGE),
        Call("post-chunked", "/echo", "POST", BYTES, shapes.LARGE[:300_000], chunked=True),
        Call("put", "/echo", "PUT", BYTES, b"put"),
        Call("patch", "/echo", "PATCH", BYTES, b"patch"),
        Call("delete", "/echo", "DELETE"),
        Call("options", "/echo", "OPTIONS"),
        Call("upload", "/upload", "POST", files=FILES),
        Call("chunked", "/chunked"),
        Call("gzip", "/gzip", headers={"Accept-Encoding": "gzip"}),
    ]


def of_clients() -> list[Call]:
    """Further ones, about what clients do on their own."""
    return [
        Call("follow-302", "/redirect/302", follow=True),
        Call("follow-303", "/redirect/303", "POST", FORM, b"a=1", follow=True),
        Call("follow-307", "/redirect/307", "POST", FORM, b"a=1", follow=True),
        Call("follow-absolute", "/redirect-absolute/301", follow=True),
        Call("since", "/small", headers={"If-Modified-Since": shapes.MODIFIED}),
        Call("range-tail", "/large", headers={"Range": "bytes=-500"}),
        Call("range-none", "/large", headers={"Range": "bytes=99999999-"}),
        Call("hints", "/hints"),
        Call("expect", "/echo", "POST", {**BYTES, "Expect": "100-continue"}, b"waited for" * 500),
        Call("own-headers", "/echo", headers={"Cookie": "a=1; b=2", "Authorization": "Basic YTpi", "X-Own": "\u00fc"}),
    ]
