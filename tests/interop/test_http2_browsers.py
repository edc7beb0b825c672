"""Browsers over HTTP/2: how every profile of curl_cffi greets (its hello, its first frames), and Chromium itself."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from tests import wanted
from tests.e2e.support import SLOW, until
from tests.interop.apps import shapes
from tests.interop.clients import run
from tests.interop.conftest import Program, Secure, settled

curl_cffi = wanted.package("curl_cffi")
requests = wanted.package("curl_cffi.requests")
sync_api = wanted.package("playwright.sync_api")

CONNECTIONS = 10
UPLOAD = shapes.LARGE[:200_000]


# ── profiles ──


def visit(secure: Secure, profile: str) -> None:
    """A page, on ten connections one after the other; at the first of them a form too."""
    how = {
        curl_cffi.CurlOpt.RESOLVE: [f"site.test:{secure.port}:127.0.0.1"],
        curl_cffi.CurlOpt.DNS_SERVERS: "127.0.0.1:1",  # some ask for HTTPS records all the same, and wait
    }
    url = f"https://site.test:{secure.port}"
    for number in range(CONNECTIONS):
        with requests.Session(
            impersonate=profile, verify=str(secure.authority), trust_env=False, curl_options=how, timeout=20 * SLOW
        ) as session:
            answer = session.get(f"{url}/small?{profile}={number}")
            assert (answer.status_code, answer.content) == (200, shapes.SMALL), profile
            assert answer.http_version == curl_cffi.CurlHttpVersion.V2_0, profile
            if number == 0:
                said = session.post(f"{url}/echo?{profile}", data=UPLOAD).json()
                assert said["body_sha256"] == hashlib.sha256(UPLOAD).hexdigest()


def visits(secure: Secure, profiles: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Their access lines, by profile, once all are there."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def complete() -> bool:
        found.clear()
        for line in secure.front.running.log_lines():
            profile, number, _ = line.get("url.query", "").partition("=")
            if number and profile in profiles:
                found[profile].append(line)
        return sum(map(len, found.values())) == len(profiles) * CONNECTIONS

    until(complete, 10, "lines of all visits")
    return found


def plain_of(ja4: str) -> str:
    """Cipher part and how many extensions, padding left out: some versions of Chromium pad hellos of some lengths."""
    return ja4[:6] + ja4[8:23]


def test_every_profile(secure: Secure) -> None:
    """Ten connections of a browser have one HTTP/2 fingerprint and one JA4 (two, where hellos are padded at times),
    though some shuffle their extensions (JA3). Another engine has others."""
    profiles = [each.value for each in requests.BrowserType]
    logged = len(secure.front.running.log_lines())
    for profile in profiles:
        visit(secure, profile)
    shuffle, groups, http2 = set(), defaultdict(list), {}
    for profile, lines in visits(secure, profiles).items():
        ja4 = sorted({line["tls.client.ja4"] for line in lines})
        assert all(each.startswith(("t13d", "t12d")) and each[8:10] == "h2" for each in ja4), (profile, ja4)
        assert len(ja4) <= 2 and len({plain_of(each) for each in ja4}) == 1, (profile, ja4)
        assert len(ja4) == 1 or int(ja4[1][6:8]) - int(ja4[0][6:8]) == 1, (profile, ja4)
        (http2[profile],) = {line["scrubber.http2"] for line in lines}
        assert {(line["tls.next_protocol"], line["http.version"]) for line in lines} == {("h2", "2")}
        if len({line["tls.client.ja3"] for line in lines}) > 1:
            shuffle.add(profile)
        groups[" ".join([*ja4, http2[profile]])].append(profile)
    for prints, members in sorted(groups.items()):
        print(f"{prints}{' (JA3 changes)' if members[0] in shuffle else ''}: {' '.join(members)}")
    assert {"chrome110", "chrome124", "chrome152"} <= shuffle
    assert not {"chrome99", "safari170", "firefox155", "tor145"} & shuffle
    engines = [{http2[each] for each in profiles if each.startswith(name)} for name in ("chrome", "safari", "firefox")]
    assert len(set().union(*engines)) == sum(map(len, engines))
    # Nobody's abuse: neither their greeting nor their leaving.
    assert not [line for line in secure.front.running.log_lines()[logged:] if "error.code" in line]
    settled(secure.front)


# ── Chromium ──


@pytest.fixture(scope="module")
def page(secure: Secure) -> Iterator[Any]:
    """A page of site.test; its console has no errors."""
    chromium = wanted.program("chromium", "chromium-browser", "google-chrome")
    words = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--ignore-certificate-errors"]
    words.append("--host-resolver-rules=MAP *.test 127.0.0.1, EXCLUDE localhost")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=words)
        context = browser.new_context()
        context.set_default_timeout(20_000 * SLOW)
        found = context.new_page()
        problems: list[str] = []

        def note(said: Any) -> None:
            if said.type == "error" and not said.location["url"].endswith("/favicon.ico"):
                problems.append(said.text)

        found.on("console", note)
        found.on("pageerror", lambda error: problems.append(str(error)))
        found.goto(f"https://site.test:{secure.port}/page/0")
        yield found
        browser.close()
        assert not problems


def test_a_page_with_many_scripts(secure: Secure, page: Any) -> None:
    before = secure.front.metric("scrubber_connections_accepted_total")
    page.goto(f"https://site.test:{secure.port}/page/30")
    assert page.evaluate("window.seen") == 30
    kinds = page.evaluate(
        "performance.getEntries().map((each) => each.nextHopProtocol).filter((each) => each !== undefined)"
    )
    assert len(kinds) >= 31 and set(kinds) == {"h2"}
    assert secure.front.metric("scrubber_connections_accepted_total") == before  # over the one that was there
    line = secure.lines("/script/29")[-1]
    assert (line["http.version"], line["tls.version"]) == ("2", "1.3")
    assert line["tls.client.ja4"].startswith("t13d15")


def test_uploads(page: Any) -> None:
    said = page.evaluate(
        """async (count) => {
            const body = new Uint8Array(count).map((_, i) => i % 256);
            const whole = await (await fetch("/echo", {method: "POST", body})).json();
            const form = new FormData();
            form.append("note", new Blob([body]), "note.bin");
            const parts = await (await fetch("/upload", {method: "POST", body: form})).json();
            // A body of unknown length: over HTTP/2 alone.
            const pieces = new ReadableStream({
                start(way) {
                    for (let at = 0; at < count; at += 65536) way.enqueue(body.slice(at, at + 65536));
                    way.close();
                },
            });
            const flowed = await (await fetch("/echo", {method: "POST", body: pieces, duplex: "half"})).json();
            return {whole, parts, flowed};
        }""",
        len(shapes.LARGE),
    )
    sha = hashlib.sha256(shapes.LARGE).hexdigest()
    assert said["whole"]["body_sha256"] == said["flowed"]["body_sha256"] == sha
    assert said["parts"] == [["note", "note.bin", len(shapes.LARGE), sha]]
    assert "content-length" not in dict(said["flowed"]["headers"])


def test_an_answer_that_streams(secure: Secure, shaped: Program, page: Any) -> None:
    page.evaluate(
        """() => {
            window.pieces = [];
            window.over = fetch("/gate/chromium").then(async (answer) => {
                const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
                for (let got; !(got = await reader.read()).done; ) window.pieces.push(got.value);
            });
        }"""
    )
    page.wait_for_function("window.pieces.join('') === 'first\\n'")
    run(["curl", "--silent", f"http://127.0.0.1:{shaped.port}/open/chromium"])
    page.evaluate("window.over")
    assert page.evaluate("window.pieces.join('')") == "first\nsecond\n"


def test_a_websocket_over_http2(secure: Secure, page: Any) -> None:
    """RFC 8441: as a stream of the connection that is there."""
    before = secure.front.metric("scrubber_connections_accepted_total")
    said = page.evaluate(
        """async (url) => {
            const socket = new WebSocket(url, ["other", "echo"]);
            socket.binaryType = "arraybuffer";
            const next = () => new Promise((done, failed) => {
                socket.onmessage = (event) => done(event.data);
                socket.onclose = (event) => failed("closed: " + event.code);
            });
            await new Promise((done, failed) => { socket.onopen = done; socket.onerror = failed; });
            const found = [socket.protocol];
            for (const count of [0, 1, 125, 126, 70000, 1000000]) {
                const sent = new Uint8Array(count).map((_, i) => i % 251);
                const answer = next();
                socket.send(sent);
                const got = new Uint8Array(await answer);
                found.push(got.length === count && got.every((each, i) => each === sent[i]));
            }
            const answer = next();
            socket.send("a text");
            found.push(await answer);
            const closed = new Promise((done) => { socket.onclose = (event) => done([event.code, event.wasClean]); });
            socket.close(1000, "enough");
            return [...found, await closed];
        }""",
        f"wss://site.test:{secure.port}/ws",
    )
    assert said == ["echo", *[True] * 6, "a text", [1000, True]]
    assert secure.front.metric("scrubber_connections_accepted_total") == before
    (line,) = secure.lines("/ws")
    assert (line["http.version"], line["scrubber.tunnel"], line["scrubber.tunnel_end"]) == ("2", "websocket", "closed")


def test_fetches_that_are_given_up(secure: Secure, shaped: Program, page: Any) -> None:
    """At every point of their way; the connection goes on, and what was given up is told to nobody as abuse."""
    before = secure.front.metric("scrubber_connections_accepted_total")
    refused = secure.front.metric("scrubber_http2_refused_total")
    said = page.evaluate(
        """async () => {
            const body = new Uint8Array(300000);
            const one = async (i) => {
                const control = new AbortController();
                setTimeout(() => control.abort(), i % 20);
                const how = i % 3 === 0 ? {method: "POST", body} : {};
                const path = ["/echo", "/large", "/gate/never"][i % 3];
                const answer = await fetch(path, {...how, signal: control.signal});
                return (await answer.arrayBuffer()).byteLength;
            };
            const ends = await Promise.allSettled([...Array(30).keys()].map(one));
            const after = await (await fetch("/large")).arrayBuffer();
            return [ends.map((each) => each.reason?.name ?? "answered"), after.byteLength];
        }"""
    )
    run(["curl", "--silent", f"http://127.0.0.1:{shaped.port}/open/never"])  # the origin would wait for it as it ends
    assert set(said[0]) <= {"AbortError", "answered"} and said[0].count("AbortError") >= 10
    assert said[1] == len(shapes.LARGE)
    assert secure.front.metric("scrubber_connections_accepted_total") == before
    assert secure.front.metric("scrubber_http2_refused_total") == refused
    until(lambda: secure.front.gauge("requests_in_flight") == 0, 10, "requests that nobody waits for")


def test_a_redirect_to_tls(secure: Secure, page: Any) -> None:
    page.goto(f"http://moved.test:{secure.clear}/page/3")
    assert page.url == f"https://moved.test:{secure.port}/page/3"
    assert page.evaluate("window.seen") == 3
    assert page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
