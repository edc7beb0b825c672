"""Clients that people use, each behind one call: make these requests, say what came.

Owns: how each program is asked and how its output is read. Invariants: a client keeps its own habits (connections,
headers, decoding); what it cannot do is in `cannot`, by name, and left out; all addresses are loopback.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx
import requests
from yarl import URL

from tests import wanted
from tests.e2e.support import SLOW
from tests.e2e.wire import Wire
from tests.interop.same import Call, Headers, Result

HERE = Path(__file__).parent
STREAM_PIECE = 16 * 1024


def pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), STREAM_PIECE):
        yield body[start : start + STREAM_PIECE]


async def pieces_async(body: bytes) -> AsyncIterator[bytes]:
    for piece in pieces(body):
        yield piece


def run(words: Sequence[str], *, fails: bool = False, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """A program to its end. Its exit status matters unless `fails`."""
    how: dict[str, Any] = {"stdin": subprocess.DEVNULL} if data is None else {"input": data}
    done = subprocess.run(words, capture_output=True, timeout=50 * SLOW, **how)
    assert fails or done.returncode == 0, (words, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done


def path_of(url: str) -> str:
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")


class Client:
    """`run(calls, port, source)`: the requests in order, over as few connections as the client would make."""

    name = ""
    program = ""  # must be there
    sources = True  # can be told which address to come from
    connections_max = 1  # for a run of the whole battery: how well it reuses them
    cannot: frozenset[str] = frozenset()

    def needs(self) -> None:
        """No test where its program is missing."""
        if self.program:
            wanted.program(self.program)

    def calls(self, battery: Sequence[Call]) -> list[Call]:
        return [call for call in battery if call.name not in self.cannot]

    def run(self, calls: Sequence[Call], port: int, directory: Path, source: str | None = None) -> list[Result]:
        raise NotImplementedError

    def stream(self, port: int, path: str) -> Iterator[bytes]:
        """An answer's body as it comes."""
        raise NotImplementedError


def read_heads(text: str) -> list[tuple[int, Headers]]:
    """Heads as curl and wget print them, one after the other."""
    found: list[tuple[int, Headers]] = []
    for line in text.splitlines():
        match = re.fullmatch(r"HTTP/(?:1\.[01]|2) (\d{3}).*", line.strip())
        if match:
            found.append((int(match[1]), []))
        elif line.strip() and found:
            name, _, value = line.strip().partition(":")
            found[-1][1].append((name, value.strip()))
    return found


def result_of(heads: list[tuple[int, Headers]], body: bytes, path: str, *, follow: bool) -> Result:
    """Of all heads of one call: the last is the answer, those before it redirects or interim ones."""
    status, headers = heads[-1]
    before = [(code, dict((n.lower(), v) for n, v in pairs)) for code, pairs in heads[:-1]]
    hops = [(code, named["location"]) for code, named in before if code >= 200]
    assert follow or not hops, heads
    # How soon 100 Continue comes decides whether curl shows it: nobody else sees it either.
    interim = [(code, named.get("link", "")) for code, named in before if 100 < code < 200]
    if hops:
        path = path_of(hops[-1][1])
    return Result(status, headers, body, path, hops, interim)


class Curl(Client):
    """`before`: words of every call."""

    name = "curl"
    program = "curl"

    def __init__(self, scheme: str = "http", before: Sequence[str] = ()) -> None:
        self.scheme = scheme
        self.before = list(before)

    def words(self, call: Call, port: int, directory: Path, number: int) -> list[str]:
        words = [*self.before, "--silent", "--show-error", "--dump-header", str(directory / f"{number}.head")]
        words += ["--output", str(directory / f"{number}.body")]
        if call.method == "HEAD":
            words.append("--head")
        elif call.files or call.body is not None:
            words += [] if call.method == "POST" else ["--request", call.method]
        else:
            words += ["--request", call.method] if call.method != "GET" else []
        for name, value in call.headers.items():
            if name != "Accept-Encoding":
                words += ["--header", f"{name}: {value}"]
        if "Accept-Encoding" in call.headers:
            words.append("--compressed")
        if call.body is not None:
            file = directory / f"{number}.in"
            file.write_bytes(call.body)
            words += ["--header", "Transfer-Encoding: chunked"] if call.chunked else []
            words += ["--data-binary", f"@{file}"]
        for name, (file_name, data) in (call.files or {}).items():
            file = directory / f"{number}.{name}"
            file.write_bytes(data)
            words += ["--form", f'{name}=@"{file}";filename="{file_name}"']
        if call.follow:
            words.append("--location")
        return [*words, f"{self.scheme}://127.0.0.1:{port}{call.path}"]

    def run(self, calls: Sequence[Call], port: int, directory: Path, source: str | None = None) -> list[Result]:
        words = ["curl", "--no-progress-meter"]
        for number, call in enumerate(calls):
            words += ["--next"] if number else []
            words += ["--interface", source] if source else []
            words += self.words(call, port, directory, number)
        run(words)
        found = []
        for number, call in enumerate(calls):
            heads = read_heads((directory / f"{number}.head").read_text("latin-1"))
            body = directory / f"{number}.body"
            data = body.read_bytes() if body.exists() and call.method != "HEAD" else b""
            found.append(result_of(heads, data, call.path, follow=call.follow))
        return found

    def stream(self, port: int, path: str) -> Iterator[bytes]:
        words = ["curl", *self.before, "--silent", "--no-buffer", f"{self.scheme}://127.0.0.1:{port}{path}"]
        yield from read_stream(words)


def read_stream(words: Sequence[str]) -> Iterator[bytes]:
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            while piece := process.stdout.read1(65536):  # type: ignore[attr-defined]
                yield piece
        finally:
            process.kill()


class Wget(Client):
    name = "wget"
    program = "wget"
    connections_max = 1000  # a process a call
    # No multipart, no chunked body, no decoding; for a body of a 304 that it did not ask for itself it waits for ever.
    cannot = frozenset({"upload", "post-chunked", "gzip", "not-modified", "since"})

    def run(self, calls: Sequence[Call], port: int, directory: Path, source: str | None = None) -> list[Result]:
        return [self.one(call, port, directory, number, source) for number, call in enumerate(calls)]

    def one(self, call: Call, port: int, directory: Path, number: int, source: str | None) -> Result:
        out = directory / f"{number}.body"
        words = ["wget", "--quiet", "--server-response", "--content-on-error", "--tries=1", "-O", str(out)]
        words += [f"--bind-address={source}"] if source else []
        words += [f"--method={call.method}"] if call.method != "GET" else []
        if call.body is not None:
            file = directory / f"{number}.in"
            file.write_bytes(call.body)
            words.append(f"--body-file={file}")
        words += [f"--header={name}: {value}" for name, value in call.headers.items()]
        words += [] if call.follow else ["--max-redirect=0"]
        # --no-config-like habits stay: it asks for identity and keeps its connection for redirects.
        done = run([*words, f"http://127.0.0.1:{port}{call.path}"], fails=True)
        heads = read_heads(done.stderr.decode("latin-1"))
        assert heads, done.stderr
        data = out.read_bytes() if out.exists() and call.method != "HEAD" else b""
        return result_of(heads, data, call.path, follow=call.follow)

    def stream(self, port: int, path: str) -> Iterator[bytes]:
        yield from read_stream(["wget", "--quiet", "-O", "-", f"http://127.0.0.1:{port}{path}"])


class Requests(Client):
    name = "requests"
    # Header values are Latin-1 or refused; its http.client takes 103 for the answer (before Python 3.13).
    cannot = frozenset({"own-headers", "hints"})

    def run(self, calls: Sequence[Call], port: int, directory: Path, source: str | None = None) -> list[Result]:
        with requests.Session() as session:
            session.trust_env = False
            if source:
                session.mount("http://", _FromSource(source))
            found = [self.one(session, call, port) for call in calls]
        return found

    def one(self, session: requests.Session, call: Call, port: int) -> Result:
        session.cookies.clear()
        body: Any = pieces(call.body) if call.chunked and call.body is not None else call.body
        answer = session.request(
            call.method,
            f"http://127.0.0.1:{port}{call.path}",
            headers=call.headers,
            data=body,
            files=call.files,
            allow_redirects=call.follow,
            timeout=20 * SLOW,
        )
        headers = list(answer.raw.headers.items())
        hops = [(each.status_code, each.headers["Location"]) for each in answer.history]
        return Result(answer.status_code, headers, answer.content, path_of(answer.url), hops)

    def stream(self, port: int, path: str) -> Iterator[bytes]:
        with requests.get(f"http://127.0.0.1:{port}{path}", stream=True, timeout=20 * SLOW) as answer:
            yield from answer.iter_content(None)


class _FromSource(requests.adapters.HTTPAdapter):
    def __init__(self, source: str) -> None:
        self.source = source
        super().__init__()

    def init_poolmanager(self, *args: Any, **how: Any) -> None:
        super().init_poolmanager(*args, source_address=(self.source, 0), **how)


class Httpx(Client):
    """`how`: of its transport."""

    name = "httpx"
    cannot = frozenset({"own-headers"})

    def __init__(self, scheme: str = "http", **how: Any) -> None:
        self.scheme = scheme
        self.how = how

    def run(self, calls: Sequence[Call], port: int, directory: Path, source: str | None = None) -> list[Result]:
        how = httpx.HTTPTransport(local_address=source, **self.how)
        with httpx.Client(transport=how, trust_env=False, timeout=20 * SLOW) as client:
            return [self.one(client, call, port) for call in calls]

    def one(self, client: httpx.Client, call: Call, port: int) -> Result:
        client.cookies.clear()
        body = pieces(call.body) if call.chunked and call.body is not None else call.body
        answer = client.request(
            call.method,
            f"{self.scheme}://127.0.0.1:{port}{call.path}",
            headers=call.headers,
            content=body,
            files=call.files,
            follow_redirects=call.follow,
        )
        hops = [(each.status_code, each.headers["location"]) for each in answer.history]
        raw = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers.raw]
        return Result(answer.status_code, raw, answer.content, path_of(str(answer.url)), hops)

    def stream(self, port: int, path: str) -> Iterator[bytes]:
        how = httpx.HTTPTransport(**self.how)
        with (
            httpx.Client(transport=how, trust_env=False, timeout=20 * SLOW) as client,
            client.stream("GET", f"{self.scheme}://127.0.0.1:{port}{path}") as answer,
        ):
            yield from answer.iter_raw()


class Aiohttp(Client):
    name = "aiohttp"
    # Its answer to a request that expected 100 is the 100 that came; the header is its own flag.
    cannot = frozenset({"expect"})

    def run(self, calls: Sequence[Call], port: int, directory: Path, source: str | None = None) -> list[Result]:
        return asyncio.run(self.battery(calls, port, source))

    async def battery(self, calls: Sequence[Call], port: int, source: str | None) -> list[Result]:
        connector = aiohttp.TCPConnector(local_addr=(source, 0) if source else None)
        jar = aiohttp.DummyCookieJar()
        limit = aiohttp.ClientTimeout(total=20 * SLOW)
        async with aiohttp.ClientSession(connector=connector, cookie_jar=jar, timeout=limit) as session:
            return [await self.one(session, call, port) for call in calls]

    async def one(self, session: aiohttp.ClientSession, call: Call, port: int) -> Result:
        data: Any = pieces_async(call.body) if call.chunked and call.body is not None else call.body
        if call.files:
            data = aiohttp.FormData()
            for name, (file_name, content) in call.files.items():
                data.add_field(name, content, filename=file_name)
        url = f"http://127.0.0.1:{port}{call.path}"
        async with session.request(
            call.method, URL(url, encoded=True), headers=call.headers, data=data, allow_redirects=call.follow
        ) as answer:
            body = await answer.read()
            hops = [(each.status, each.headers["Location"]) for each in answer.history]
            raw = [(name.decode("latin-1"), value.decode("utf-8")) for name, value in answer.raw_headers]
            return Result(answer.status, raw, body, path_of(str(answer.url)), hops)

    def stream(self, port: int, path: str) -> Iterator[bytes]:
        loop = asyncio.new_event_loop()
        try:
            found = self.each(port, path)
            while True:
                try:
                    yield loop.run_until_complete(anext(found))
                except StopAsyncIteration:
                    return
        finally:
            loop.run_until_complete(found.aclose())
            loop.close()

    async def each(self, port: int, path: str) -> Any:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
            async for piece in answer.content.iter_any():
                yield piece


class NodeFetch(Client):
    name = "node-fetch"
    program = "node"
    sources = False
    connections_max = 4  # undici opens another one where a body is still being sent
    cannot = frozenset({"expect", "own-headers"})  # "expect header not supported"; header values are bytes

    def run(self, calls: Sequence[Call], port: int, directory: Path, source: str | None = None) -> list[Result]:
        asked = [
            {
                "url": f"http://127.0.0.1:{port}{call.path}",
                "method": call.method,
                "headers": call.headers,
                "body": base64.b64encode(call.body).decode() if call.body is not None else None,
                "chunked": call.chunked,
                "files": {k: [n, base64.b64encode(d).decode()] for k, (n, d) in (call.files or {}).items()},
                "follow": call.follow,
            }
            for call in calls
        ]
        done = run(["node", str(HERE / "fetch.mjs")], data=json.dumps(asked).encode())
        return [
            Result(each["status"], pairs(each["headers"]), base64.b64decode(each["body"]), path_of(each["url"]))
            for each in json.loads(done.stdout)
        ]

    def stream(self, port: int, path: str) -> Iterator[bytes]:
        yield from read_stream(["node", str(HERE / "fetch.mjs"), f"http://127.0.0.1:{port}{path}"])


def pairs(found: list[list[str]]) -> Headers:
    return [(name, value) for name, value in found]


class Raw(Client):
    """Plain sockets and a strict reader: shows interim answers and framing as they are on the wire."""

    name = "raw"

    def run(self, calls: Sequence[Call], port: int, directory: Path, source: str | None = None) -> list[Result]:
        found = []
        wire = Wire(port, source=source)
        try:
            for call in calls:
                wire.send(self.bytes_of(call, port))
                interim: list[tuple[int, str]] = []
                while (answer := wire.head()).status < 200:
                    interim.append((answer.status, ",".join(answer.all("link"))))
                wire.body_of(answer, call.method)
                found.append(Result(answer.status, answer.headers, answer.body, call.path, [], interim))
                if "close" in answer.all("connection"):
                    wire.sock.close()
                    wire = Wire(port, source=source)
        finally:
            wire.sock.close()
        return found

    def bytes_of(self, call: Call, port: int) -> bytes:
        body, headers = call.body, dict(call.headers)
        if call.files:
            headers["Content-Type"] = "multipart/form-data; boundary=part"
            body = b""
            for name, (file, data) in call.files.items():
                body += f'--part\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n\r\n'.encode()
                body += data + b"\r\n"
            body += b"--part--\r\n"
        if body is not None:
            headers |= {"Transfer-Encoding": "chunked"} if call.chunked else {"Content-Length": str(len(body))}
        if body is not None and call.chunked:
            framed = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces(body)]
            body = b"".join(framed) + b"0\r\n\r\n"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"{call.method} {call.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{lines}\r\n"
        return head.encode("utf-8") + (body or b"")


CLIENTS: list[Client] = [Curl(), Wget(), Requests(), Httpx(), Aiohttp(), NodeFetch(), Raw()]
