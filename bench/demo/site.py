"""The demo's site, all of it made from a seed: pages, style, script, images, and a catalogue to search.

Owns: what the origin serves and what people expect to get, so that both sides know every byte. Invariant: the same
bytes in every process that calls build().
"""
import hashlib
import hmac
import html
import random
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

SEED = 20220114
HOST = "portal.example"
PAGES = ("", "news", "services", "forms", "offices", "about")
IMAGES_PAGE = 4
WORDS = (
    "passport", "tax", "land", "school", "clinic", "pension", "permit", "vote", "water", "licence", "child", "road",
    "grid", "court", "notary", "census", "grant", "farm",
)
RECORDS = 1500  # about 2 ms of CPU a search
ROUNDS = 2500  # of PBKDF2: about 1 ms of CPU a password
SESSION = "session=3f9c1a70"
ACCOUNT = "/account"
PASSWORD = "correct-horse"  # noqa: S105  of a site that exists for 40 seconds
_DIGEST = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b"demo", ROUNDS)


@dataclass(frozen=True, slots=True)
class Resource:
    """One answer: its status, type and body."""

    status: int
    kind: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Site:
    """Everything by path, and the records that a search goes through."""

    resources: dict[str, Resource]
    texts: dict[str, list[str]]  # of the pages that are made anew for every request, by path
    records: list[str]

    def get(self, path: str) -> Resource | None:
        """What is at a path. Pages are made for each request, as a site does that shows more than files."""
        text = self.texts.get(path)
        if text is None:
            return self.resources.get(path)
        paragraphs = "".join(f"<p>{' '.join(html.escape(word) for word in line.split())}</p>" for line in text)
        name = path.strip("/")
        images = images_of(name) if name in PAGES else []
        return Resource(200, "text/html; charset=utf-8", _page(name.title() or "Portal", paragraphs, images))

    def search(self, query: str) -> Resource:
        """Walk all records, as a small site without an index does: this is what makes a search dear."""
        words = query.lower().split()[:8]
        scored = sorted(
            ((sum(record.count(word) for word in words), record) for record in self.records),
            key=lambda pair: (-pair[0], pair[1]),
        )
        rows = "".join(f"<li>{html.escape(record[:90])}</li>" for score, record in scored[:20] if score)
        body = _page("Search", f"<p>Results for {html.escape(query[:80])}</p><ol>{rows}</ol>", [])
        return Resource(200, "text/html; charset=utf-8", body)


def _png(rng: random.Random, width: int, height: int) -> bytes:
    """A real PNG (RFC 2083) with a coloured pattern."""
    red, green, blue = (rng.randrange(256) for _ in range(3))
    rows = bytearray()
    for y in range(height):
        rows.append(0)
        for x in range(width):
            rows += bytes(((red + x * y) & 255, (green + x * 3) & 255, (blue ^ rng.randrange(32)) & 255))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(rows))) + chunk(b"IEND", b"")


def _page(title: str, content: str, images: list[str]) -> bytes:
    figures = "".join(f'<img src="{path}" alt="">' for path in images)
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{title}</title>"
        '<link rel=stylesheet href="/static/site.css"><script defer src="/static/app.js"></script></head>'
        f'<body><header><img src="/img/logo.png" alt=""><h1>{title}</h1></header><main>{content}</main>{figures}</body>'
        "</html>"
    ).encode()


def _sentence(rng: random.Random) -> str:
    return f"{' '.join(rng.choices(WORDS, k=9)).capitalize()}."


def password_is(given: str) -> bool:
    """Whether that is the password, compared as a site with care for its users does."""
    digest = hashlib.pbkdf2_hmac("sha256", given.encode(), b"demo", ROUNDS)
    return hmac.compare_digest(digest, _DIGEST)


def images_of(page: str) -> list[str]:
    """The images that belong to a page."""
    return [f"/img/{page or 'home'}-{number}.png" for number in range(IMAGES_PAGE)]


def build() -> Site:
    """The whole site."""
    rng = random.Random(SEED)
    resources: dict[str, Resource] = {}
    texts: dict[str, list[str]] = {}
    for page in PAGES:
        texts["/" + page] = [_sentence(rng) for _ in range(80)]
        for path in images_of(page):
            resources[path] = Resource(200, "image/png", _png(rng, rng.randrange(24, 72), 48))
    resources["/img/logo.png"] = Resource(200, "image/png", _png(rng, 64, 64))
    style = "".join(f".{word}{n}{{color:#{rng.randrange(1 << 24):06x}}}\n" for word in WORDS for n in range(20))
    resources["/static/site.css"] = Resource(200, "text/css", style.encode())
    script = "".join(f"function {word}{n}(x){{return x*{rng.randrange(99)}}}\n" for word in WORDS for n in range(12))
    resources["/static/app.js"] = Resource(200, "text/javascript", script.encode())
    texts[ACCOUNT] = [_sentence(rng) for _ in range(12)]
    return Site(resources, texts, [_sentence(rng) for _ in range(RECORDS)])


def expectations(site: Site) -> dict[str, Any]:
    """What people visit and what they must get: for every request its status, size, SHA-256 and Location."""
    searches = {f"/search?q={word}": site.search(word) for word in WORDS[:12]}
    answers = site.resources | searches | {path: page for path in site.texts if (page := site.get(path))}
    expect = {
        f"GET {path}": [one.status, len(one.body), hashlib.sha256(one.body).hexdigest(), ""]
        for path, one in answers.items()
    }
    expect["POST /login"] = [303, 0, hashlib.sha256(b"").hexdigest(), ACCOUNT]
    return {
        "host": HOST,
        "pages": [{"path": "/" + page, "assets": images_of(page)} for page in PAGES],
        "shared": ["/static/site.css", "/static/app.js", "/img/logo.png"],
        "searches": list(searches),
        "login": "/login",
        "account": ACCOUNT,
        "expect": expect,
    }
