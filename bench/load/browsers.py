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

    def head(self, method: str, host: str, path: str, *, page: bool, referer: str = "", cookie: str = "",
             body_type: str = "", body_bytes: int = 0) -> bytes:
        """A request head in this browser's order of headers."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: keep-alive"]
        if body_type:
            lines += [f"Content-Length: {body_bytes}", f"Content-Type: {body_type}", f"Origin: http://{host}"]
        if page and "Firefox" not in self.agent:
            lines.append("Upgrade-Insecure-Requests: 1")
        lines += [f"User-Agent: {self.agent}", f"Accept: {self.accept_page if page else self.accept_image}"]
        if referer:
            lines.append(f"Referer: http://{host}{referer}")
        lines += [f"Accept-Encoding: {self.encodings}", f"Accept-Language: {self.languages}"]
        if cookie:
            lines.append(f"Cookie: {cookie}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


BROWSERS: tuple[Browser, ...] = (
    Browser(
        "chrome",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 "
        "Safari/537.36",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
        "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
        "en-GB,en;q=0.9,uk;q=0.8", "gzip, deflate", 4,
    ),
    Browser(
        "firefox",
        "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
        "image/avif,image/webp,*/*", "uk,en-US;q=0.7,en;q=0.3", "gzip, deflate", 4,
    ),
    Browser(
        "safari",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 "
        "Mobile/15E148 Safari/604.1",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "image/webp,image/avif,image/*;q=0.8,*/*;q=0.5", "uk-UA,uk;q=0.9", "gzip, deflate", 2,
    ),
    Browser(
        "edge",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 "
        "Safari/537.36 Edg/130.0.0.0",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,image/apng,*/*;q=0.8",
        "image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", "de,en;q=0.9", "gzip, deflate", 6,
    ),
)
