"""What is fuzzed. A target takes any bytes and raises AssertionError where something that must hold of them does not.

Owns: those functions, the seeds that they begin with, and the words that mutations put in.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import re
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from scrubber import _native
from scrubber.control.policy import PolicyInForce, compile_files
from scrubber.control.saved import SavedBlock, restore
from scrubber.errors import FilesRefused, PolicyRefused
from scrubber.mandate import layout
from scrubber.mandate.compile import CompiledPolicy
from scrubber.mandate.load import load_all, load_mandate
from scrubber.mandate.prefixes import compile_prefixes
from scrubber.server import block_file
from tests.fuzz import http2, http2_head
from tests.reference import chain, clienthello, others, path, proxy_header, refused
from tests.reference.hostile import CHUNKED_SEEDS, REQUEST_SEEDS, RESPONSE_SEEDS, SPICE
from tests.reference.prefixes import normal_address, packed
from tests.reference.ring import read_all
from tests.unit.files import BAD, GOOD, HEAD, MINIMAL_GATEWAY, NOW, ROOT, write
from tests.unit.images import MONO_NS, compiled, opened
from tests.unit.regions import make_memory


@dataclasses.dataclass(frozen=True)
class Target:
    """`run` raises AssertionError; `words` is what mutations put in beside random bytes."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    bytes_max: int
    words: Callable[[], Iterable[bytes]] = lambda: SPICE


# HTTP/1


def thirds(data: bytes) -> list[int]:
    return [len(data) // 3, 2 * len(data) // 3]


def read_alike(whole: tuple[str, object], pieces: tuple[str, object]) -> None:
    """A line in pieces is judged when it has ended: what is refused may be refused later, by the same name."""
    assert pieces == whole or (pieces[0] == "more" and whole[0] != "ok"), (whole, pieces)


def request_head(data: bytes) -> None:
    """Read alike in pieces; nothing taken that h11 or llhttp refuse; what is made of a head stays in its bounds."""
    whole = _native.probe_request(data)
    read_alike(whole, _native.probe_request(data, cuts=thirds(data)))
    name, head = whole
    if name != "ok":
        _native.probe_accepts_json(data, False)
        return
    others.request_taken(data)
    assert _native.probe_path(head["path"]) == path.normalise(head["path"], 2048)
    _native.probe_fingerprint(data)
    _native.probe_accepts_json(data)
    _native.probe_cache_ask(data, 1_700_000_000)
    for kind in range(1, 5):
        assert len(_native.probe_account(data, kind, b"sid", 64)) <= 64


def request_seeds() -> Iterator[bytes]:
    yield from REQUEST_SEEDS
    yield from (case.data for case in refused.requests().values() if len(case.data) < 2000)


def response_head(data: bytes) -> None:
    """As a request head; and what a cache makes of it."""
    whole = _native.probe_response(data)
    read_alike(whole, _native.probe_response(data, cuts=thirds(data)))
    _native.probe_response(data, 2)
    if others.response_taken(data):
        _native.probe_cache_answer(data, (0, 1 << 20, 10**12, 10**9, 10**10), 1, 0, 10**9, 2 * 10**9)
        _native.probe_cache_vary(data)


CACHEABLE = (
    b'HTTP/1.1 200 OK\r\nCache-Control: max-age=60, s-maxage="9", stale-while-revalidate=5, public\r\nAge: 3\r\n'
    b'Vary: Accept, X-A\r\nETag: W/"a"\r\nExpires: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n'
)


def chunked_body(data: bytes) -> None:
    """Any split is read alike; what is read to its end, others read to the same end."""
    whole = _native.probe_chunked([data])
    a, b = thirds(data)
    assert _native.probe_chunked([data[:a], data[a:b], data[b:]]) == whole
    assert _native.probe_chunked([data[i : i + 1] for i in range(len(data))]) == whole
    others.chunked_taken(data)


def chunked_seeds() -> Iterator[bytes]:
    yield from CHUNKED_SEEDS
    yield from refused.CHUNKS


# Who it is from


def proxy_protocol(data: bytes) -> None:
    """As the slow reference, of the whole and of its first half."""
    for piece in (data, data[: len(data) // 2]):
        assert _native.probe_proxy_header(piece) == proxy_header.parse(piece), piece


def proxy_seeds() -> Iterator[bytes]:
    yield b"PROXY TCP4 192.0.2.1 198.51.100.1 4660 80\r\nGET"
    yield b"PROXY TCP6 2001:db8::1 ::ffff:1.2.3.4 1 65535\r\n"
    yield b"PROXY UNKNOWN x y\r\n"
    tls = b"\x01" + bytes(4) + b"".join(proxy_header.tlv(kind, b"TLSv1.3") for kind in (*range(0x21, 0x27),))
    tlvs = [(0x01, b"h2"), (0x02, b"a.example"), (0x05, b"id"), (0x20, tls), (0x30, b"ns"), (0xEA, b"\x01vpce")]
    yield proxy_header.binary(tlvs=tlvs)
    yield proxy_header.binary(tlvs=tlvs, summed=True)
    yield proxy_header.binary(0x20, 0, b"")
    yield proxy_header.binary(0x21, 0x21, bytes(range(36)), [(0xE0 + n, bytes(n)) for n in range(10)])
    yield proxy_header.binary(0x21, 0x31, bytes(216))


def client_hello(data: bytes) -> None:
    """As the slow reference, of the whole and of its first half."""
    for piece in (data, data[: len(data) // 2]):
        found = _native.probe_hello(piece)
        expected = clienthello.read(piece)
        assert (found if isinstance(found, str) else (found["ja3"], found["ja4"], found["used"])) == expected, piece


def hello_seeds() -> Iterator[bytes]:
    browser = clienthello.Hello(
        ciphers=[0x4A4A, 0x1301, 0xC02B],
        extensions=[
            (0x1A1A, b""),
            clienthello.server_name(b"example.org"),
            clienthello.groups(0x2A2A, 0x11EC, 29),
            clienthello.point_formats(0),
            clienthello.signatures(0x0403, 0x0804),
            clienthello.alpn(b"h2", b"http/1.1"),
            clienthello.versions(0x3A3A, 0x0304),
        ],
        session=bytes(32),
    )
    yield from (browser.records(fragment) for fragment in (16384, 100, 3))
    yield clienthello.Hello(version=0x0301, ciphers=[47, 10]).records()
    yield clienthello.Hello(extensions=[clienthello.alpn(b"\xab\xcd"), (0, b"")]).records() + b"\x17\x03\x03\x00\x01a"
    yield b"GET / HTTP/1.1\r\n\r\n"
    yield b"\x16\x03\x01\x00\x00"


def hello_words() -> Iterator[bytes]:
    yield from (
        b"\x16\x03\x01",
        b"\x00\x00",
        b"\xff\xff",
        b"\x0a\x0a",
        b"\x40\x00",
        b"\x3f\xfc",
        b"\x00\x10\x00\x05\x00\x03\x02h2",
    )


FORWARDED_NAMES = (b"X-Forwarded-For", b"Forwarded", b"X-Forwarded-Proto", b"X-Forwarded-Host")
TRUSTED = ["10.0.0.0/8", "2001:db8:a::/48"]
TRUSTS = chain.trusted_by(TRUSTED)


@functools.cache
def trusted() -> _native.ProbePrefixes:
    return _native.ProbePrefixes(compile_prefixes(dict.fromkeys(TRUSTED, 1), 1))


def forwarded(data: bytes) -> None:
    """Each line is a header, its first byte says which; a trusted peer sent them, and then one that is not."""
    fields = [(FORWARDED_NAMES[line[0] % 4], line[1:]) for line in data.split(b"\n") if line]
    head = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"%b: %b\r\n" % field for field in fields) + b"\r\n"
    if _native.probe_request(head, (16384, 16384, 128))[0] != "ok":
        return
    text = [(name.decode(), value.decode("latin-1")) for name, value in fields]
    for peer in ("10.0.0.1", "192.0.2.5"):
        proof, client, proto, host = _native.probe_chain(head, trusted(), packed(normal_address(peer)))
        expected = chain.client(text, TRUSTS, normal_address(peer))
        assert (proof == 0, client) == (expected.hops == 0, packed(expected.client)), head
        assert (proto.decode("latin-1"), host.decode("latin-1")) == (expected.proto, expected.host), head


def forwarded_seeds() -> Iterator[bytes]:
    yield b"\x00192.0.2.1, 198.51.100.7:80, [2001:db8:a::1]:1, 10.0.0.2\n\x02https\n\x03a.b:80"
    yield b'\x01for=192.0.2.1;proto=https;host="a.b:80", for="[2001:db8:a::2]:_x";by=_a, for=10.0.0.3'
    yield b'\x01for="10.0.0.4\\"";a="\\\\", for=unknown;for=1.1.1.1'
    yield b"\x00::ffff:10.9.9.9, fe80::1%1, _x, unknown, , 10.0.0.5"


def forwarded_words() -> Iterator[bytes]:
    yield from (
        b"for=",
        b"proto=",
        b"host=",
        b"10.0.0.2",
        b"::ffff:10.1.1.1",
        b"2001:db8:a::1",
        b'"',
        b"\\",
        b", ",
        b";",
        b"[",
        b"]:",
    )


# Files and tables


@functools.cache
def scratch() -> tempfile.TemporaryDirectory[str]:
    """For what is read from files; it goes with the process."""
    return tempfile.TemporaryDirectory(prefix="fuzz")


def mandate_file(data: bytes) -> None:
    """Problems, each with its file and an error among them, or a mandate whose image the core takes."""
    folder = Path(scratch().name)
    file = folder / "m.toml"
    file.write_bytes(data)
    mandate, problems = load_mandate(file, now=NOW)
    assert all(problem.file == str(file) and problem.message for problem in problems)
    assert (mandate is None) == any(problem.severity == "error" for problem in problems)
    if mandate is None:
        return
    try:
        policy = compiled(load_all(write(folder, MINIMAL_GATEWAY), now=NOW))
    except FilesRefused as error:
        assert error.problems
        return
    assert _native.probe_policy_load(policy.image) is None


def mandate_seeds() -> Iterator[bytes]:
    files = [*ROOT.glob("configs/*mandate.toml"), *GOOD.glob("*mandate.toml"), *(p for p in BAD if "mandate" in p.name)]
    for file in sorted(files):
        yield re.sub(r"^areas = .*$", 'areas = ["site"]', file.read_text(), flags=re.MULTILINE).encode()


def mandate_words() -> set[bytes]:
    found = set(re.findall(rb'"[^"\n]{1,24}"|\b[a-z_]{2,20}\b|[0-9]+[a-zA-Z/%]+', b"".join(mandate_seeds())))
    return found | {
        b"[[rule]]",
        b"[[rule.ladder]]",
        b"[proportion]",
        b"true",
        b"false",
        b"1e9",
        b"-1",
        b"0x7fffffffffffffff",
        b"nan",
    }


@functools.cache
def full() -> CompiledPolicy:
    return compiled(load_all(GOOD / "full-gateway.toml", now=NOW))


@functools.cache
def memory() -> _native.Memory:
    return make_memory(secret=b"sixteen bytes...")[0]


def patched(base: bytes, patches: bytes) -> bytearray:
    """Six bytes a patch: the index of a 32-bit word (wrapping), and what is written there. A rest cuts the end off."""
    image = bytearray(base)
    for at, value in struct.iter_unpack("<HI", patches[: len(patches) // 6 * 6]):
        struct.pack_into("<I", image, at * 4 % (len(image) - 3), value)
    return image[: len(image) - len(patches) % 6]


HOSTS = (b"a.example", b"shop.example.org", b"x")
ASKED = b"GET /login/x.php?a=b HTTP/1.1\r\nHost: %b\r\nUser-Agent: a\r\nCookie: sid=1\r\nAccept: */*\r\n\r\n"


def policy_image(data: bytes) -> None:
    """Of a sound image with patches: the loader refuses it, or areas, routes and the judge stay in it."""
    image = patched(full().image, data)
    if _native.probe_policy_load(bytes(image)) is not None:
        return
    head = list(layout.HEADER.unpack_from(image))
    head[5] = hashlib.sha256(image[layout.HEADER.size :]).digest()
    layout.HEADER.pack_into(image, 0, *head)
    with contextlib.suppress(PolicyRefused, UnicodeDecodeError):  # names that are no text are read by tests alone
        walk(opened(dataclasses.replace(full(), image=bytes(image))), head[6 + 2 * layout.SECTIONS.index("areas") + 1])


def walk(policy: _native.Policy, areas: int) -> None:
    peer = packed(normal_address("192.0.2.7"))
    judge = _native.ProbeJudge(memory(), policy)
    judge.connection(0, peer, MONO_NS)
    for host in HOSTS:
        asked = judge.request(0, peer, ASKED % host, MONO_NS)
        if asked is not None:
            judge.done(asked, MONO_NS + 10**6, 1000, 10**6)
    for area in range(areas):
        _native.RouteProbe(policy, area, ASKED % b"a.example")


def image_seeds() -> Iterator[bytes]:
    """Each word of the image has 0, 1 and all ones written to it in one of them."""
    yield b""
    words = len(full().image) // 4
    for value in (0, 1, 0xFFFFFFFF):
        yield from (struct.pack("<HI", at, value) for at in range(0, min(words, 1 << 16), 7))


@functools.cache
def prefix_base() -> bytes:
    return compile_prefixes(
        {"10.0.0.0/8": 1, "10.1.0.0/16": 2, "192.0.2.1": 3, "2001:db8::/32": 4, "2001:db8::1": 5}, 0
    )


def prefix_image(data: bytes) -> None:
    """Of a sound one with patches: the loader refuses it, or every lookup stays in it."""
    try:
        table = _native.ProbePrefixes(bytes(patched(prefix_base(), data)))
    except ValueError:
        return
    for text in ("0.0.0.0", "10.1.1.1", "255.255.255.255", "::", "2001:db8::1", ":".join(["ffff"] * 8)):
        table.find(packed(normal_address(text)))


def prefix_seeds() -> Iterator[bytes]:
    yield b""
    for at in range(len(prefix_base()) // 4):
        yield from (struct.pack("<HI", at, value) for value in (0, 1, 0xFFFFFFFF))


RING_HEADER, RING_BYTES = 128, 131072


def ring_reader(data: bytes) -> None:
    """Eight bytes of head, eight of tail, what lies from the tail on: read as the slow reference reads it."""
    memory = bytearray(RING_HEADER + RING_BYTES)
    head, tail = struct.unpack("<QQ", data[:16].ljust(16, b"\0"))
    at = RING_HEADER + tail % RING_BYTES
    first = data[16 : 16 + len(memory) - at]
    rest = data[16 + len(first) :]
    memory[at : at + len(first)] = first
    memory[RING_HEADER : RING_HEADER + len(rest)] = rest
    expected = read_all(bytes(memory[RING_HEADER:]), head, tail)
    struct.pack_into("<Q", memory, 0, head)
    struct.pack_into("<Q", memory, 64, tail)
    ring = _native.ProbeRing(memory)
    for record in expected:
        assert ring.read() == record
    assert ring.read() is None
    assert ring.write(2, b"after")
    assert ring.read() == (2, b"after")


def ring_seeds() -> Iterator[bytes]:
    two = struct.pack("<II", 3, 1) + b"abc" + bytes(5) + struct.pack("<II", 8, 2) + b"12345678"
    for tail in (0, 8, RING_BYTES - 8, RING_BYTES - 16, RING_BYTES * 3 - 24, 2**64 - 16, 2**64 - 8):
        yield struct.pack("<QQ", (tail + len(two)) % 2**64, tail) + two
        yield struct.pack("<QQ", (tail + len(two) - 8) % 2**64, tail) + two
    yield struct.pack("<QQ", 13, 5) + two
    yield struct.pack("<QQ", RING_BYTES + 8, 0) + two
    yield struct.pack("<QQII", 1 << 15, 0, 16384, 1)


BLOCKS_KEY = b"k" * 32


def blocks_file(data: bytes) -> None:
    """Lines as they are, and each under a MAC of ours: any of them is put back, or counted as unsound."""
    block_file.parse(data, BLOCKS_KEY)
    lines = [block_file.seal(line, BLOCKS_KEY) for line in data.split(b"\n")]
    found = block_file.parse(b"\n".join(lines), BLOCKS_KEY)
    assert len(found.blocks) + found.unsound <= len(lines)
    policy, image = in_force()
    back = restore(memory(), image, policy, found.blocks, int(NOW.timestamp()) * 10**9)
    assert back.back + back.dropped.total() == len(found.blocks)


@functools.cache
def in_force() -> tuple[PolicyInForce, _native.Policy]:
    folder = Path(scratch().name, "blocks")
    folder.mkdir(exist_ok=True)
    loaded = load_all(write(folder, MINIMAL_GATEWAY, m=HEAD), now=NOW)
    policy, images = compile_files(loaded.gateway, loaded.mandates, {}, 1)
    return policy, opened(images)


def blocks_seeds() -> Iterator[bytes]:
    now = int(NOW.timestamp()) * 10**9
    made = []
    for kind, source in (
        ("client", "203.0.113.7"),
        ("client", "2001:db8::/64"),
        ("prefix", "203.0.115.0/24"),
        ("fingerprint", "0" * 16),
    ):
        block = SavedBlock(
            kind,
            source,
            ("site",),
            "00000000000000a1",
            "b" * 16,
            now - 9,
            now - 9,
            now + 10**12,
            10**12,
            "m/powers.block",
            "Example CERT",
            "m",
        )
        made.append(msgspec.json.encode(block))
    lifted = block_file.Lifted("client", "203.0.113.7")
    records = [msgspec.json.encode(block_file.Head()), *made, msgspec.json.encode(lifted)]
    lines = [b"%d %s" % (number, record) for number, record in enumerate(records, 1)]
    yield b"\n".join(lines)
    yield from lines


def blocks_words() -> Iterator[bytes]:
    names = [field.encode_name for field in msgspec.structs.fields(SavedBlock)]
    yield from (b'"%b":' % name.encode() for name in names)
    yield from (b"null", b"-1", b"1e400", b'"account"', b"\xff", b"18446744073709551616", b"::/0", b"\n")


TARGETS = {
    "request_head": Target(request_head, request_seeds, 2048),
    "response_head": Target(response_head, lambda: [*RESPONSE_SEEDS, CACHEABLE], 2048),
    "http2_session": Target(http2.session, http2.seeds, http2.BYTES_MAX, http2.words),
    "http2_head": Target(http2_head.run, http2_head.seeds, 2048, http2_head.words),
    "chunked_body": Target(chunked_body, chunked_seeds, 512),
    "proxy_protocol": Target(proxy_protocol, proxy_seeds, 1024, proxy_seeds),
    "client_hello": Target(client_hello, hello_seeds, 2048, hello_words),
    "forwarded": Target(forwarded, forwarded_seeds, 1024, forwarded_words),
    "mandate_file": Target(mandate_file, mandate_seeds, 4096, mandate_words),
    "policy_image": Target(policy_image, image_seeds, 60, lambda: ()),
    "prefix_image": Target(prefix_image, prefix_seeds, 60, lambda: ()),
    "ring_reader": Target(ring_reader, ring_seeds, 1024, lambda: ()),
    "blocks_file": Target(blocks_file, blocks_seeds, 2048, blocks_words),
}
