"""Header profiles of several browsers, in the order in which they send them (HTTP/1.1, plain text).

Used by people, and copied byte for byte by the floods that imitate them: nothing here tells the two apart.
"""
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Browser:
    """What a browser says of itself."""

    name: str
    agent: str
    accept_page: str
    accept_image: str
    languages: str
    encodings: str
    connections: int  # at once to one site; six in all of them, fewer where the pages are small
    order: str  # of its headers

    def head(self, method: str, host: str, path: str, *, page: bool, referer: str = "", cookie: str = "",
             body_type: str = "", body_bytes: int = 0) -> bytes:
        """A request head in this browser's order of headers; what a request has no use for is left out."""
        values = {
            "Host": host,
            "Connection": "keep-alive",
            "Content-Length": str(body_bytes) if body_type else "",
            "Content-Type": body_type,
            "Origin": f"http://{host}" if body_type else "",
            "Upgrade-Insecure-Requests": "1" if page else "",
            "User-Agent": self.agent,
            "Accept": self.accept_page if page else self.accept_image,
            "Referer": f"http://{host}{referer}" if referer else "",
            "Accept-Encoding": self.encodings,
            "Accept-Language": self.languages,
            "Cookie": cookie,
        }
        fields = "".join(f"{name}: {values[name]}\r\n" for name in self.order.split() if values[name])
        return f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode()


CHROMIUM = ("Host Connection Content-Length Upgrade-Insecure-Requests Origin Content-Type User-Agent Accept Referer "
            "Accept-Encoding Accept-Language Cookie")
GECKO = ("Host User-Agent Accept Accept-Language Accept-Encoding Content-Type Content-Length Origin Connection Referer "
         "Cookie Upgrade-Insecure-Requests")
WEBKIT = ("Host Content-Type Origin Cookie Upgrade-Insecure-Requests Connection Accept User-Agent Referer "
          "Content-Length Accept-Language Accept-Encoding")

BROWSERS: tuple[Browser, ...] = (
    Browser(
        "chrome",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 "
        "Safari/537.36",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
        "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
        "en-GB,en;q=0.9,uk;q=0.8", "gzip, deflate", 4, CHROMIUM,
    ),
    Browser(
        "firefox",
        "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
        "image/avif,image/webp,*/*", "uk,en-US;q=0.7,en;q=0.3", "gzip, deflate", 4, GECKO,
    ),
    Browser(
        "safari",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 "
        "Mobile/15E148 Safari/604.1",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "image/webp,image/avif,image/*;q=0.8,*/*;q=0.5", "uk-UA,uk;q=0.9", "gzip, deflate", 2, WEBKIT,
    ),
    Browser(
        "edge",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 "
        "Safari/537.36 Edg/130.0.0.0",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,image/apng,*/*;q=0.8",
        "image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", "de,en;q=0.9", "gzip, deflate", 6, CHROMIUM,
    ),
)
