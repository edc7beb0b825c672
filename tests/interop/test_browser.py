"""A real application in a real browser, straight and through the gateway: a person sees, gets and may do the same.

Django behind gunicorn (shop/), Chromium headless. Playwright's own browsers are not used: its downloads cannot be had
everywhere.
"""

from __future__ import annotations

import http.client
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from tests import wanted
from tests.e2e.proxy import Proxy
from tests.e2e.support import ROOT, SLOW, environment, until
from tests.e2e.wire import fetch
from tests.interop.apps import shapes
from tests.interop.conftest import CACHE_MEMORY, Program, cache_example, settled
from tests.interop.origins import free_port, listening

sync_api = wanted.package("playwright.sync_api")
wanted.package("django")
wanted.package("gunicorn")

SHEET = shapes.LARGE[: 1_500_000 + 7]
PASSWORD = "let me in, please"  # noqa: S105


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the tables and one user."""
    directory = tmp_path_factory.mktemp("stock")
    words = [sys.executable, "-m", "tests.interop.shop.serve"]
    made = subprocess.run(words, cwd=ROOT, env=environment(SHOP_DIR=str(directory)), capture_output=True)
    assert made.returncode == 0, made.stderr
    return directory


@pytest.fixture
def shops(tmp_path: Path, stock: Path) -> Iterator[Callable[..., Program]]:
    """Starts the application with a database of its own."""
    running: list[Program] = []

    def start(**env: str) -> Program:
        directory = tmp_path / f"shop{len(running)}"
        shutil.copytree(stock, directory)
        env["SHOP_DIR"] = str(directory)
        port = free_port()
        words = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread"]
        words += [
            "--threads",
            "8",
            "--log-level",
            "warning",
            "--no-control-socket",
            "tests.interop.shop.serve:application",
        ]
        running.append(Program(words, port=port, **env))
        until(lambda: listening(port), 20, "the application")
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    chromium = wanted.program("chromium", "chromium-browser", "google-chrome")
    with sync_api.sync_playwright() as playwright:
        words = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        found = playwright.chromium.launch(executable_path=chromium, headless=True, args=words)
        yield found
        found.close()


@dataclass
class Journey:
    """What a person went through."""

    seen: list[tuple[str, str, str]] = field(default_factory=list)  # step, title, visible text
    shots: list[tuple[str, bytes]] = field(default_factory=list)
    console: list[str] = field(default_factory=list)  # errors, and exceptions of pages
    failed: list[str] = field(default_factory=list)  # requests that got no answer
    answers: set[tuple[str, str, int, str]] = field(default_factory=set)  # method, path, status, content type
    cookies: list[tuple[str, bool, str]] = field(default_factory=list)
    downloaded: bytes = b""
    protocols: set[str] = field(default_factory=set)


def journey(browser: sync_api.Browser, port: int, sheet: Path) -> Journey:
    """Log in, make an object with a file, find it, download it, fill the basket, be refused once, log out."""
    base, found = f"http://127.0.0.1:{port}", Journey()
    context = browser.new_context(viewport={"width": 1000, "height": 800}, locale="en-GB", accept_downloads=True)
    context.set_default_timeout(20_000 * SLOW)
    page = context.new_page()
    page.on("console", lambda said: found.console.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: found.console.append(str(error)))
    page.on("requestfailed", lambda request: found.failed.append(request.url.replace(base, "")))

    def note(answer: sync_api.Response) -> None:
        kind = answer.headers.get("content-type", "")
        found.answers.add((answer.request.method, answer.url.replace(base, ""), answer.status, kind))

    page.on("response", note)

    def look(step: str) -> None:
        page.wait_for_load_state("load")
        found.seen.append((step, page.title(), page.inner_text("body").replace(base, "")))
        found.shots.append((step, page.screenshot(full_page=True, animations="disabled", caret="hide")))
        found.protocols.add(page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol"))

    page.goto(f"{base}/admin/shop/article/")
    look("asked to log in")
    page.fill("#id_username", "ada")
    page.fill("#id_password", "wrong")
    page.click("input[type=submit]")
    look("refused")
    page.fill("#id_username", "ada")
    page.fill("#id_password", PASSWORD)
    page.click("input[type=submit]")
    look("the list, empty")
    page.click("a.addlink >> nth=-1")
    page.fill("#id_name", "Ein Stück <b>Kreide</b>")
    page.fill("#id_price", "12.50")
    page.set_input_files("#id_sheet", sheet)
    look("filled in")
    page.click("input[name=_save]")
    look("saved")
    page.fill("#searchbar", "Kreide")
    page.press("#searchbar", "Enter")
    look("found")
    with page.expect_download() as download:
        page.evaluate("location.href = '/sheet/1'")
    found.downloaded = Path(download.value.path()).read_bytes()
    page.goto(f"{base}/basket")
    page.wait_for_function("!document.body.innerText.includes('not yet')")
    for count in 1, 2:
        page.click("#add")
        page.wait_for_function(f"document.body.innerText.includes('fetched {count}')")
        page.wait_for_function("!document.body.innerText.includes('not yet')")
    look("the basket")
    page.go_back()
    page.wait_for_function("!document.body.innerText.includes('not yet')")  # leaving at once would cut its fetches off
    page.reload()
    page.wait_for_function("!document.body.innerText.includes('not yet')")
    look("reloaded")
    page.evaluate("document.querySelector('[name=csrfmiddlewaretoken]').value = 'x'.repeat(64)")
    page.click("#add")
    look("forged")
    page.goto(f"{base}/admin/")
    page.click("#logout-form button")
    look("logged out")
    page.goto(f"{base}/sheet/1")
    look("asked again")
    found.cookies = sorted((c["name"], c["httpOnly"], c["sameSite"]) for c in context.cookies())
    context.close()
    return found


def unlike(shot: bytes, other: bytes) -> float:
    """The share of pixels that differ as one can see: a glyph's edge is not drawn the same twice."""
    a, b = (Image.open(io.BytesIO(each)).convert("RGB") for each in (shot, other))
    if a.size != b.size:
        return 1.0
    steps = ImageChops.difference(a, b).convert("L").histogram()
    return sum(steps[16:]) / (a.size[0] * a.size[1])


@pytest.mark.timeout(180)
def test_a_person_sees_no_difference(browser: sync_api.Browser, shops: Callable[..., Program], tmp_path: Path) -> None:
    """Neither with a gateway in between nor with one that keeps answers."""
    sheet = tmp_path / "sheet.bin"
    sheet.write_bytes(SHEET)
    straight = journey(browser, shops().port, sheet)
    # First that the journey went where it should: two failures alike are no success.
    texts = {step: text for step, _, text in straight.seen}
    assert "Please enter the correct username and password" in texts["refused"]
    assert "was added successfully" in texts["saved"] and "1 article" in texts["found"]
    assert "2 in the basket" in texts["the basket"] and "streamed 8890" in texts["the basket"]
    assert "CSRF verification failed" in texts["forged"]
    assert straight.downloaded == SHEET
    assert straight.failed == ["/sheet/1"]  # how Chromium names a navigation that became a download
    with Proxy(workers=2, origins=[f"127.0.0.1:{shops().port}"]) as front:
        no_difference(straight, journey(browser, front.port, sheet))
        settled(front)
        codes = {line["http.response.status_code"] for line in front.running.log_lines()}
    assert {200, 302, 403} <= codes and max(codes) < 500
    # Behind a cache that has kept for strangers what it may: who has a session is given none of that.
    how = {"gateway": CACHE_MEMORY, "extra": cache_example().replace('ttl_default = "1s"', 'ttl_default = "1h"')}
    with Proxy(workers=2, origins=[f"127.0.0.1:{shops().port}"], **how) as front:
        pages = {path for method, path, _, _ in straight.answers if method == "GET"}
        for path in sorted(pages) * 2:
            fetch(front.port, path)
        hits = front.metric("scrubber_cache_requests_total", result="hit")
        assert hits > 3
        no_difference(straight, journey(browser, front.port, sheet))
        settled(front)
        assert front.metric("scrubber_cache_requests_total", result="hit") == hits


def no_difference(straight: Journey, through: Journey) -> None:
    for (step, title, text), (other_step, other_title, other_text) in zip(straight.seen, through.seen, strict=True):
        assert (step, title, text) == (other_step, other_title, other_text)
    assert through.downloaded == SHEET
    assert through.console == straight.console
    assert through.failed == straight.failed
    assert through.answers == straight.answers
    assert through.cookies == straight.cookies
    assert through.protocols == straight.protocols == {"http/1.1"}
    for (step, shot), (_, other_shot) in zip(straight.shots, through.shots, strict=True):
        assert unlike(shot, other_shot) < 0.001, f"{step} looks different"


def where(port: int, **headers: str) -> dict[str, object]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20 * SLOW)
    try:
        connection.request("GET", "/where", headers={name.replace("_", "-"): value for name, value in headers.items()})
        found: dict[str, object] = json.loads(connection.getresponse().read())
        return found
    finally:
        connection.close()


class Person:
    """A login by forms and cookies, without a browser."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookies: dict[str, str] = {}

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> tuple[int, str, str]:
        """Status, Location, text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20 * SLOW)
        headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if method == "POST":
            headers |= {
                "Content-Type": "application/x-www-form-urlencoded",
                "Referer": f"http://127.0.0.1:{self.port}/",
            }
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            for value in answer.headers.get_all("Set-Cookie", []):
                name, _, rest = value.partition("=")
                self.cookies[name] = rest.split(";")[0]
            return answer.status, answer.headers.get("Location", ""), answer.read().decode()
        finally:
            connection.close()

    def add(self, origin: str) -> int:
        """One more into the basket, as a form of a page of that origin would."""
        _, _, text = self.ask("GET", "/basket")
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', text)
        assert token, text
        status, _, _ = self.ask("POST", "/basket/add", f"csrfmiddlewaretoken={token[1]}", Origin=origin)
        return status


def test_csrf_and_addresses_with_the_host_kept(shops: Callable[..., Program]) -> None:
    """The application needs no setting; what a client claims to be forwarded does not reach it."""
    with Proxy(workers=2, origins=[f"127.0.0.1:{shops().port}"]) as front:
        here = f"http://127.0.0.1:{front.port}"
        assert where(front.port) == {"uri": f"{here}/x", "secure": False}
        person = Person(front.port)
        assert person.add(here) == 302
        assert person.add("http://evil.test") == 403
        status, to, _ = person.ask("GET", "/admin")
        assert (status, to) == (301, "/admin/")


def test_csrf_and_addresses_with_the_origins_host(shops: Callable[..., Program]) -> None:
    """keep_host = false, and the two settings that Django asks for then."""
    shop = shops(SHOP_BEHIND_PROXY="yes")
    with Proxy(workers=2, origins=[f"127.0.0.1:{shop.port}"], area="keep_host = false") as front:
        here = f"http://127.0.0.1:{front.port}"
        assert where(front.port) == {"uri": f"{here}/x", "secure": False}
        forged = {
            "X_Forwarded_Proto": "https",
            "X_Forwarded_Host": "evil.test",
            "Forwarded": "proto=https;host=evil.test",
        }
        assert where(front.port, **forged) == {"uri": f"{here}/x", "secure": False}
        person = Person(front.port)
        assert person.add(here) == 302
        assert person.add(f"http://127.0.0.1:{shop.port}") == 403
    # Without the settings the application sees itself at the origin's address, and refuses forms: as behind any proxy.
    unaware = shops()
    with Proxy(workers=2, origins=[f"127.0.0.1:{unaware.port}"], area="keep_host = false") as front:
        assert where(front.port)["uri"] == f"http://127.0.0.1:{unaware.port}/x"
        assert Person(front.port).add(f"http://127.0.0.1:{front.port}") == 403
