"""What each kind of flood sends: a shape makes the bytes of one request.

Invariant: a shape knows only the site's public face, as an attacker would.
"""
import random
from collections.abc import Callable

from bench.load.browsers import BROWSERS

Shape = Callable[[], bytes]


def plain(host: str, rng: random.Random) -> Shape:
    """GET / as a script sends it."""
    data = f"GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: python-requests/2.32.3\r\nAccept: */*\r\n\r\n".encode()
    return lambda: data


def search(host: str, rng: random.Random) -> Shape:
    """A search that no cache has seen: the site's dearest page, a new word each time."""
    fields = f"Host: {host}\r\nUser-Agent: Mozilla/5.0\r\nAccept: text/html\r\n\r\n".encode()
    head = b"GET /search?q=%x HTTP/1.1\r\n" + fields
    return lambda: head % rng.getrandbits(48)


def login(host: str, rng: random.Random) -> Shape:
    """Password guesses."""
    head = (
        f"POST /login HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 35\r\n\r\nuser=visitor&password="
    ).encode() + b"%013x"
    return lambda: head % rng.getrandbits(52)


def browser(host: str, rng: random.Random) -> Shape:
    """Every header of a real browser in its order, over pages and images; nothing in it differs from a person's."""
    paths = [("/", True), ("/news", True), ("/services", True), ("/static/site.css", False), ("/img/logo.png", False)]
    requests = [
        one.head("GET", host, path, page=page, referer="" if page else "/") for one in BROWSERS for path, page in paths
    ]
    return lambda: rng.choice(requests)


SHAPES: dict[str, Callable[[str, random.Random], Shape]] = {
    "plain": plain, "search": search, "login": login, "browser": browser,
}
