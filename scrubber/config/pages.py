"""Small files that the gateway answers with: routes to a file, maintenance and error pages.

Owns what such a file may be and how it is read. Invariant: a file is read once, when the gateway file is; what it held
then is served until the next reload, whoever writes to it meanwhile.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Annotated, Any

import msgspec

from scrubber.config.network import PREFIX
from scrubber.config.walk import Derived, Doc, OneOrMore, Prepared, Reads, Report, integer, measured
from scrubber.errors import ValueRefused
from scrubber.units import format_duration, parse_duration_ns

PAGE_BYTES_MAX = 65536  # ext/route_spec.pxd
PAGES_BYTES_MAX = 16 * 1024 * 1024  # of one gateway file
# Words that error and maintenance pages may have in braces.
PAGE_WORDS = frozenset({"request_id", "case", "status"})
CONTENT_TYPES = {
    ".txt": "text/plain; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".htm": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".xml": "application/xml",
    ".svg": "image/svg+xml",
    ".ico": "image/x-icon",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".pdf": "application/pdf",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
}


def _parse_line(value: Any) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or len(value) > 200:
        raise ValueRefused(f"{value!r} is not a media type", expected='a media type as "text/html; charset=utf-8"')
    return value.strip()


CONTENT_TYPE = Reads(_parse_line, "", "media type")


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A small file. Derived: `content` and `modified_s` (seconds since 1970), as they were when it was read."""

    path: Annotated[str, Doc("The file (at most 64 KiB); relative to the gateway file.", '"pages/502.html"')]
    content_type: Annotated[
        str, CONTENT_TYPE, Doc("Its Content-Type.", '"text/html; charset=utf-8"', default="by the file's name")
    ] = ""
    content: Annotated[bytes, Derived()] = b""
    modified_s: Annotated[int, Derived()] = 0


def page_table(value: Any) -> Any:
    """A page may be written as its path."""
    return {"path": value} if isinstance(value, str) else value


PAGE = Prepared(page_table, 'a path or a table, as "pages/502.html" or { path = "pages/502.html" }')


def _maintenance_table(value: Any) -> Any:
    return {"on": value} if isinstance(value, bool) else value


MAINTENANCE = Prepared(_maintenance_table, 'true, false or a table, as { file = "pages/maintenance.html" }')


class Maintenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everybody gets a page and comes back later, but for those who are let through."""

    on: Annotated[bool, Doc("Whether it is in force; `maintenance = true` is short for a table with nothing else.")] = (
        True
    )
    file: Annotated[
        Page | None,
        PAGE,
        Doc(
            "The page, as its path or a table; `{request_id}` in it is filled in.",
            '"pages/maintenance.html"',
            default="the area's error page, or a plain one",
        ),
    ] = None
    status: Annotated[int, integer(500, 599), Doc("Status of the answer.", unit="status")] = 503
    retry_after_ns: Annotated[
        int,
        measured(parse_duration_ns, format_duration, 0, parse_duration_ns("30d")),
        Doc("When to come back (Retry-After); 0s: not said.", '"1h"'),
    ] = msgspec.field(default=parse_duration_ns("10m"), name="retry_after")
    allow: Annotated[
        tuple[Annotated[str, PREFIX], ...],
        OneOrMore(at_least=0),
        Doc("Clients that pass all the same.", '["192.0.2.0/24"]'),
    ] = ()


def read_page(page: Page, home: Path, report: Report, path: str) -> Page:
    """The page with its content; a problem at `path` where the file cannot be served."""
    file = home / page.path
    expected = f"a file of at most {PAGE_BYTES_MAX // 1024} KiB"
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            report.error(path, f"{page.path} is not a file", expected)
            return page
        with file.open("rb") as opened:
            content = opened.read(PAGE_BYTES_MAX + 1)
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        report.error(path, f"{page.path} cannot be read: {why}", expected, f"looked for in {file.parent}")
        return page
    if len(content) > PAGE_BYTES_MAX:
        hint = "what is larger belongs to an origin"
        report.error(path, f"{page.path} is larger than {PAGE_BYTES_MAX} bytes", expected, hint)
        return page
    content_type = page.content_type or CONTENT_TYPES.get(file.suffix.lower(), "application/octet-stream")
    modified_s = max(0, int(found.st_mtime))
    return msgspec.structs.replace(page, content=content, modified_s=modified_s, content_type=content_type)
