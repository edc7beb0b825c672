"""Who a request is from: trusted chains, forged ones, accounts; golden cases and the slow references."""

from __future__ import annotations

import base64
import ipaddress
import json
import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scrubber import _native
from scrubber.mandate.prefixes import compile_prefixes
from tests.reference import account as account_reference
from tests.reference import chain as chain_reference
from tests.reference.prefixes import normal_address, packed

SOCKET, PROXY, CHAIN = 0, 1, 2
HEADER, COOKIE, BEARER, BASIC = 1, 2, 3, 4
TRUSTED = ["10.0.0.0/8", "2001:db8:a::/48", "198.51.100.7/32"]
TABLE = _native.ProbePrefixes(compile_prefixes(dict.fromkeys(TRUSTED, 1), 1))
TRUSTS = chain_reference.trusted_by(TRUSTED)


def head(headers: list[tuple[bytes, bytes]]) -> bytes:
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    return b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n"


def walk(headers: list[tuple[bytes, bytes]], peer: str = "10.0.0.1", proof: int = SOCKET) -> tuple[int, str]:
    proven, client, *_ = _native.probe_chain(head(headers), TABLE, packed(normal_address(peer)), proof)
    return int(proven), _native.probe_address_format(client).decode()


def arrival(headers: list[tuple[bytes, bytes]], peer: str = "10.0.0.1") -> tuple[bytes, bytes]:
    """proto and host of the client, as the chain has them."""
    *_, proto, host = _native.probe_chain(head(headers), TABLE, packed(normal_address(peer)))
    return proto, host


def xff(*lines: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"X-Forwarded-For", line) for line in lines]


def forwarded(*lines: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"Forwarded", line) for line in lines]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"192.0.2.1"], (CHAIN, "192.0.2.1")),
        ([b"203.0.113.9, 192.0.2.1"], (CHAIN, "192.0.2.1")),
        ([b"203.0.113.9, 192.0.2.1, 10.0.0.2"], (CHAIN, "192.0.2.1")),
        ([b"203.0.113.9", b"192.0.2.1", b"10.0.0.2,10.0.0.3"], (CHAIN, "192.0.2.1")),
        ([b"10.0.0.9, 10.0.0.2"], (CHAIN, "10.0.0.9")),
        ([b"192.0.2.1:4711"], (CHAIN, "192.0.2.1")),
        ([b"2001:db8::1"], (CHAIN, "2001:db8::1")),
        ([b"[2001:db8::1]"], (CHAIN, "2001:db8::1")),
        ([b"[2001:db8::1]:4711"], (CHAIN, "2001:db8::1")),
        ([b"::ffff:192.0.2.1"], (CHAIN, "192.0.2.1")),
        ([b"192.0.2.1, ::ffff:10.0.0.2"], (CHAIN, "192.0.2.1")),
        ([b"[::ffff:c000:201]:80"], (CHAIN, "192.0.2.1")),
        ([b"\t192.0.2.1 \t,\t10.0.0.2"], (CHAIN, "192.0.2.1")),
        # Rubbish ends the walk at the last proven hop.
        ([b""], (SOCKET, "10.0.0.1")),
        ([b"192.0.2.1,"], (SOCKET, "10.0.0.1")),
        ([b"192.0.2.1, , 10.0.0.2"], (CHAIN, "10.0.0.2")),
        ([b"unknown"], (SOCKET, "10.0.0.1")),
        ([b"192.0.2.1, unknown, 10.0.0.2"], (CHAIN, "10.0.0.2")),
        ([b"192.0.2.1, _hidden"], (SOCKET, "10.0.0.1")),
        ([b"fe80::1%eth0"], (SOCKET, "10.0.0.1")),
        ([b"2001:db8::1%1"], (SOCKET, "10.0.0.1")),
        ([b"192.0.2.1%eth0"], (SOCKET, "10.0.0.1")),
        ([b"192.0.2.1, fe80::1%eth0, 10.0.0.2"], (CHAIN, "10.0.0.2")),
        ([b"[::ffff:192.0.2.1]:4711, 2001:db8:a::7"], (CHAIN, "192.0.2.1")),
        ([b"::ffff:10.0.0.9, ::ffff:10.0.0.2"], (CHAIN, "10.0.0.9")),
        ([b"[2001:db8::1]:0"], (CHAIN, "2001:db8::1")),
        ([b"192.0.2.1:_obfuscated"], (CHAIN, "192.0.2.1")),
        ([b"192.0.2.1:_"], (SOCKET, "10.0.0.1")),
        ([b"192.0.2.1, _SEVKISEK:80"], (SOCKET, "10.0.0.1")),
        ([b"[fe80::1%25eth0]:80"], (SOCKET, "10.0.0.1")),
        ([b"192.0.2.1:65536"], (SOCKET, "10.0.0.1")),
        ([b"192.0.2.1:"], (SOCKET, "10.0.0.1")),
        ([b"192.0.2.1:80:80"], (SOCKET, "10.0.0.1")),
        ([b"[192.0.2.1]"], (SOCKET, "10.0.0.1")),
        ([b"[::1"], (SOCKET, "10.0.0.1")),
        ([b"[::1]80"], (SOCKET, "10.0.0.1")),
        ([b'"192.0.2.1"'], (SOCKET, "10.0.0.1")),
        ([b"192.0.2.01"], (SOCKET, "10.0.0.1")),
        ([b"192.0.2.1 203.0.113.9"], (SOCKET, "10.0.0.1")),
        ([b"for=192.0.2.1"], (SOCKET, "10.0.0.1")),
    ],
)
def test_x_forwarded_for(lines: list[bytes], expected: tuple[int, str]) -> None:
    assert walk(xff(*lines)) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"for=192.0.2.1"], (CHAIN, "192.0.2.1")),
        ([b"For=192.0.2.1;proto=http;by=203.0.113.43"], (CHAIN, "192.0.2.1")),
        ([b"proto=http ; for=192.0.2.1"], (CHAIN, "192.0.2.1")),
        ([b'for="[2001:db8::1]:4711"'], (CHAIN, "2001:db8::1")),
        ([b'for="[2001:db8::1]"'], (CHAIN, "2001:db8::1")),
        ([b'for="192.0.2.1:80"'], (CHAIN, "192.0.2.1")),
        ([b'for="192.0.2.1:_port"'], (CHAIN, "192.0.2.1")),
        ([b'for="1\\92.0.2.1"'], (CHAIN, "192.0.2.1")),
        ([b'for="[::ffff:192.0.2.1]"'], (CHAIN, "192.0.2.1")),
        ([b"for=203.0.113.9, for=192.0.2.1"], (CHAIN, "192.0.2.1")),
        ([b"for=203.0.113.9", b"for=192.0.2.1, for=10.0.0.2"], (CHAIN, "192.0.2.1")),
        ([b'for=192.0.2.1;host="a,b;c", for=10.0.0.2;ext="\\",for=1.2.3.4"'], (CHAIN, "192.0.2.1")),
        # What a client left open cannot hide what the nearest hop wrote.
        ([b'for="203.0.113.9, for=192.0.2.1'], (CHAIN, "192.0.2.1")),
        ([b'for=203.0.113.9;x="\\", for=192.0.2.1'], (CHAIN, "192.0.2.1")),
        ([b'"""\\, for=192.0.2.1;proto="http"'], (CHAIN, "192.0.2.1")),
        # Rubbish ends the walk.
        ([b"for=192.0.2.1, for=unknown"], (SOCKET, "10.0.0.1")),
        ([b'for="unknown:80"'], (SOCKET, "10.0.0.1")),
        ([b'for="_gazonk"'], (SOCKET, "10.0.0.1")),
        ([b'for="_gazonk:_p1"'], (SOCKET, "10.0.0.1")),
        ([b'for="[fe80::1%25eth0]"'], (SOCKET, "10.0.0.1")),
        ([b'for="[fe80::1%eth0]:80"'], (SOCKET, "10.0.0.1")),
        ([b"for=_hidden"], (SOCKET, "10.0.0.1")),
        ([b"for=192.0.2.1, proto=http"], (SOCKET, "10.0.0.1")),
        ([b"for=192.0.2.1;for=192.0.2.1"], (SOCKET, "10.0.0.1")),
        ([b"for=2001:db8::1"], (SOCKET, "10.0.0.1")),
        ([b'for="2001:db8::1"'], (SOCKET, "10.0.0.1")),
        ([b"for=192.0.2.1:80"], (SOCKET, "10.0.0.1")),
        ([b"for=[2001:db8::1]"], (SOCKET, "10.0.0.1")),
        ([b'for="192.0.2.1'], (SOCKET, "10.0.0.1")),
        ([b'for="192.0.2.1"x'], (SOCKET, "10.0.0.1")),
        ([b"for = 192.0.2.1"], (SOCKET, "10.0.0.1")),
        ([b"for="], (SOCKET, "10.0.0.1")),
        ([b'for=""'], (SOCKET, "10.0.0.1")),
        ([b"192.0.2.1"], (SOCKET, "10.0.0.1")),
        ([b'for="' + b"1" * 70 + b'"'], (SOCKET, "10.0.0.1")),
        ([b""], (SOCKET, "10.0.0.1")),
    ],
)
def test_forwarded(lines: list[bytes], expected: tuple[int, str]) -> None:
    assert walk(forwarded(*lines)) == expected


def test_x_forwarded_for_goes_before_forwarded() -> None:
    assert walk([*forwarded(b"for=203.0.113.9"), *xff(b"192.0.2.1")]) == (CHAIN, "192.0.2.1")
    assert walk([*xff(b"unknown"), *forwarded(b"for=203.0.113.9")]) == (SOCKET, "10.0.0.1")


def test_other_headers_prove_nothing() -> None:
    names = "X-Real-IP X-Client-IP True-Client-IP CF-Connecting-IP X-Forwarded X-Forwarded-Fo Via Client-IP"
    assert walk([(name.encode(), b"192.0.2.1") for name in names.split()]) == (SOCKET, "10.0.0.1")


def test_proof_of_the_peer_is_kept_where_nothing_was_walked() -> None:
    assert walk([], proof=PROXY) == (PROXY, "10.0.0.1")
    assert walk(xff(b"192.0.2.1"), peer="192.0.2.77", proof=PROXY) == (PROXY, "192.0.2.77")
    assert walk(xff(b"192.0.2.1"), proof=PROXY) == (CHAIN, "192.0.2.1")


def test_nobody_is_trusted_without_a_table() -> None:
    peer = packed(normal_address("10.0.0.1"))
    assert _native.probe_chain(head(xff(b"192.0.2.1")), None, peer)[:2] == (SOCKET, peer)


TOLD = [(b"X-Forwarded-Proto", b"https"), (b"X-Forwarded-Host", b"xfh.test")]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (forwarded(b"for=192.0.2.1;proto=https;host=abc"), (b"https", b"abc")),
        (forwarded(b'for="[2001:db8::1]:99";proto=https;host=abc, for=10.0.0.2'), (b"https", b"abc")),
        (forwarded(b"for=192.0.2.1;proto=https;host=abc", b"for=10.0.0.2;proto=http;host=inner"), (b"https", b"abc")),
        (forwarded(b"for=10.0.0.9;proto=https"), (b"https", b"")),
        (forwarded(b'HOST="a.test:8443";Proto="HTTPS" ; for=192.0.2.1'), (b"HTTPS", b"a.test:8443")),
        (forwarded(b'for=192.0.2.1;host="[2001:db8::5]:80"'), (b"", b"[2001:db8::5]:80")),
        (forwarded(b"for=192.0.2.9;proto=https;host=claimed, for=192.0.2.1;proto=http"), (b"http", b"")),
        (forwarded(b"for=unknown;proto=https;host=abc, for=10.0.0.2;proto=http"), (b"http", b"")),
        (forwarded(b"for=192.0.2.1;proto=https;proto=http"), (b"", b"")),
        (forwarded(b"for=192.0.2.1;host=a;host=b"), (b"", b"")),
        (forwarded(b'for=192.0.2.1;proto="ht\\tps";host="a\\b"'), (b"", b"")),
        (forwarded(b'for=192.0.2.1;proto="";host=""'), (b"", b"")),
        (forwarded(b'for=192.0.2.1;proto="https x";host="a b"'), (b"", b"")),
        (forwarded(b"for=192.0.2.1;proto=1https;host=a..b"), (b"", b"")),
        (forwarded(b"for=192.0.2.1;proto=" + b"a" * 33), (b"", b"")),
        (forwarded(b"for=192.0.2.1;proto=" + b"a" * 32), (b"a" * 32, b"")),
        (forwarded(b'for=192.0.2.1;host="' + b"a" * 255 + b'"'), (b"", b"a" * 255)),
        ([*forwarded(b"for=192.0.2.1;proto=http"), *TOLD], (b"http", b"xfh.test")),
        ([*xff(b"192.0.2.1"), *TOLD], (b"https", b"xfh.test")),
        ([*xff(b"192.0.2.1"), *forwarded(b"for=192.0.2.1;proto=https;host=abc")], (b"", b"")),
        ([*xff(b"192.0.2.1"), (b"X-Forwarded-Proto", b"")], (b"", b"")),
        ([*xff(b"unknown"), *TOLD], (b"", b"")),
        (TOLD, (b"", b"")),
    ],
)
def test_how_the_client_came(headers: list[tuple[bytes, bytes]], expected: tuple[bytes, bytes]) -> None:
    assert arrival(headers) == expected
    assert arrival(headers, peer="192.0.2.77") == (b"", b""), "nobody trusts this one"


def test_an_element_that_says_a_thing_twice_ends_the_walk() -> None:
    assert walk(forwarded(b"for=192.0.2.1;proto=https;proto=http, for=10.0.0.2")) == (CHAIN, "10.0.0.2")
    assert walk(forwarded(b"for=192.0.2.1;by=_a;by=_b")) == (CHAIN, "192.0.2.1"), "what is not read here does not count"


def test_at_most_32_hops() -> None:
    lines = xff(b", ".join([b"192.0.2.1", *[b"10.0.1.%d" % i for i in range(40)]]))
    assert walk(lines) == (CHAIN, "10.0.1.8")


def hostile_lists(draw: st.DrawFn) -> bytes:
    parts = st.sampled_from(
        [b"192.0.2.1", b"10.0.0.2", b"198.51.100.7", b"2001:db8:a::1", b"[2001:db8:a::1]:80", b"::ffff:10.9.9.9",
        b"unknown", b"_x", b"",
         b"for=192.0.2.1", b"for=10.0.0.3", b'for="[2001:db8:a::2]"', b'for="10.0.0.4:80";by=_a', b'for="10.0.0.5',
         b'x"', b"\\", b'"',
         b'a="\\"";for=10.0.0.6', b"fe80::1%1", b"1.2.3.4:99999", b"for=10.0.0.7;for=10.0.0.8", b";for=10.0.0.9",
         b"for=10.0.0.9;", b"for=192.0.2.1;proto=https;host=abc", b'for=10.0.0.2;host="a.b:80";proto=http',
         b'for=10.0.0.3;host="a\\b";proto="1x"', b"for=192.0.2.1;host=a;host=b", b'proto=a+b;for=10.0.0.8;host="[::1]"']
    )  # fmt: skip
    return draw(st.sampled_from([b",", b", ", b" ,\t"])).join(draw(st.lists(parts, max_size=6)))


@st.composite
def chains(draw: st.DrawFn) -> list[tuple[bytes, bytes]]:
    names = st.sampled_from([b"X-Forwarded-For", b"forwarded", b"FORWARDED", b"x-forwarded-for", b"X-Other"])
    told = draw(st.lists(st.sampled_from(TOLD), max_size=2))
    return [*((draw(names), hostile_lists(draw)) for _ in range(draw(st.integers(0, 4)))), *told]


def reference_walk(headers: list[tuple[bytes, bytes]], peer: str) -> tuple[int, str, bytes, bytes]:
    text = [(name.decode(), value.decode("latin-1")) for name, value in headers]
    found = chain_reference.client(text, TRUSTS, normal_address(peer))
    return (CHAIN if found.hops else SOCKET), str(found.client), found.proto.encode(), found.host.encode()


@settings(max_examples=400)
@given(chains(), st.sampled_from(["10.0.0.1", "2001:db8:a::9", "192.0.2.5"]))
def test_as_the_reference(headers: list[tuple[bytes, bytes]], peer: str) -> None:
    assert (*walk(headers, peer), *arrival(headers, peer)) == reference_walk(headers, peer)


BITS = [b"10.0.0.2", b"192.0.2.1", b",", b", ", b"for=", b'"', b"[", b"]", b":", b";", b"::1", b"unknown", b"\\", b"="]


def test_forged_chains_of_untrusted_peers_change_nothing() -> None:
    """Ten thousand of them, the same ones in each run."""
    random_ = random.Random(7239)
    bits = [*BITS, b"127.0.0.1", b"by=", b"_a"]
    for _ in range(10_000):
        name = random_.choice([b"X-Forwarded-For", b"Forwarded", b"X-Real-IP"])
        value = b"".join(random_.choices(bits, k=random_.randrange(12)))
        peer = f"192.0.2.{random_.randrange(256)}"
        assert walk([(name, value)], peer) == (SOCKET, peer), value


def test_forged_chains_never_reach_past_the_nearest_hop() -> None:
    """Whatever a client sends in front, the address that the trusted proxy appended is the client."""
    random_ = random.Random(7239)
    bits = [*BITS, b" ", b"for=10.0.0.9"]
    for _ in range(10_000):
        sent = b"".join(random_.choices(bits, k=random_.randrange(12)))
        client = f"203.0.113.{random_.randrange(256)}".encode()
        joined = random_.random() < 0.5
        if random_.random() < 0.5:
            lines = xff(sent + b", " + client) if joined else xff(sent, client)
        else:
            lines = forwarded(sent + b", for=" + client) if joined else forwarded(sent, b"for=" + client)
        assert walk(lines) == (CHAIN, client.decode()), sent


def test_forged_chains_behind_a_named_peer_change_nothing() -> None:
    """The same for an address that a PROXY header named: only where it is a trusted proxy itself is it walked past."""
    random_ = random.Random(2119)
    bits = [*BITS, b"2001:db8:a::1", b"%1", b"::ffff:10.0.0.2"]
    for _ in range(10_000):
        name = random_.choice([b"X-Forwarded-For", b"Forwarded"])
        value = b"".join(random_.choices(bits, k=random_.randrange(12)))
        peer = str(ipaddress.IPv6Address(int(ipaddress.IPv6Address("2001:db8:b::")) + random_.getrandbits(64)))
        assert walk([(name, value)], peer, PROXY) == (PROXY, peer), value


# Accounts


def account(headers: list[tuple[bytes, bytes]], kind: int, name: bytes = b"", cap: int = 64) -> bytes:
    return bytes(_native.probe_account(head(headers), kind, name, cap))


def b64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def jwt(payload: bytes) -> bytes:
    return b64url(b'{"alg":"HS256"}') + b"." + b64url(payload) + b".c2ln"


def bearer(payload: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"Authorization", b"Bearer " + jwt(payload))]


def basic(pair: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"Authorization", b"Basic " + base64.b64encode(pair))]


def test_header_account() -> None:
    key = [(b"X-API-Key", b" secret \xff "), (b"x-api-key", b"second")]
    assert account(key, HEADER, b"x-api-key") == b"secret \xff"
    assert account(key, HEADER, b"x-api-key", cap=3) == b"sec"
    assert account(key, HEADER, b"x-api-kez") == b""
    assert account([], HEADER, b"x-api-key") == b""
    assert account([*key, (b"Connection", b"x-api-key")], HEADER, b"x-api-key") == b""


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"sid=abc"], b"abc"),
        ([b"a=1; sid=abc; sid=def"], b"abc"),
        ([b"a=1", b"sid=abc"], b"abc"),
        ([b"a=1;sid=abc"], b"abc"),
        ([b'sid="a b"'], b"a b"),
        ([b'sid="'], b'"'),
        ([b"sid=a=b"], b"a=b"),
        ([b"sid=; sid=x"], b""),
        ([b"sid = x; sid=y"], b"y"),
        ([b"SID=abc"], b""),
        ([b"xsid=abc"], b""),
        ([b"sid"], b""),
        ([b"sid; sid=1"], b"1"),
        ([b"a=sid=1"], b""),
        ([b";;; sid=1 ;"], b"1"),
        ([b""], b""),
    ],
)
def test_cookie_account(lines: list[bytes], expected: bytes) -> None:
    headers = [(b"Cookie", line) for line in lines]
    assert account(headers, COOKIE, b"sid") == expected
    assert account_reference.from_cookie(headers, b"sid", 64) == expected


@pytest.mark.parametrize(
    ("payload", "subject"),
    [
        (b'{"sub":"alice"}', "alice"),
        (b' { "iat" : 1 , "sub" : "alice" , "x":null} ', "alice"),
        (b'{"a":{"sub":"no"},"b":["sub","no",{"sub":[{}]}],"sub":"yes"}', "yes"),
        (b'{"s\\u0075b":"alice"}', "alice"),
        (b'{"sub":"\\u00e4\\ud83d\\ude00\\n\\"\\\\\\/"}', 'ä😀\n"\\/'),
        (b'{"x":"\\"sub\\":\\"no\\"","sub":"yes"}', "yes"),
        ('{"sub":"ünal"}'.encode(), "ünal"),
        (b'{"x":-1.5e+3,"y":true,"sub":"a"}', "a"),
    ],
)
def test_bearer_subject(payload: bytes, subject: str) -> None:
    assert account(bearer(payload), BEARER) == subject.encode()
    assert account_reference.from_bearer(bearer(payload), 64) == subject.encode()


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"{}", b"[]", b'"sub"', b'{"sub":1}', b'{"sub":null}', b'{"sub":["a"]}', b'{"sub":""}',
        b'{"sub":"a","sub":"b"}',
        b'{"sub":"a","s\\u0075b":"a"}', b'{"sub":"a"', b'{"sub":"a"}x', b'{"sub":"a",}', b'{sub:"a"}', b'{"sub" "a"}',
        b'{"sub":"a\n"}',
        b'{"sub":"\\x"}', b'{"sub":"\\u12"}', b'{"x":{"sub":"a"}}', b'{"x":[},"sub":"a"}', b'{"x":,"sub":"a"}',
        b'{"x":[{]},"sub":"a"}',
        b'{"x":' + b"[" * 65 + b"]" * 65 + b',"sub":"a"}', b'{"x":"' + b"y" * 4100 + b'","sub":"a"}', b'[{"sub":"a"}]',
        b'{"x":"sub":"a"}',
        b'{"x":@,"sub":"a"}', b'{"x":[@],"sub":"a"}',
    ],
)  # fmt: skip
def test_a_token_without_one_subject_stands_for_itself(payload: bytes) -> None:
    assert account(bearer(payload), BEARER) == jwt(payload)[-64:]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Bearer opaque-token", b"opaque-token"),
        (b"BEARER  opaque~+/==", b"opaque~+/=="),
        (b"bearer a.b", b"a.b"),
        (b"Bearer a.b.c.d", b"a.b.c.d"),
        (b"Bearer a.!.c", b""),
        (b"Bearer", b""),
        (b"Bearer a b", b""),
        (b"Bearer =", b""),
        (b"Bearer a=b", b""),
        (b"Bearera", b""),
        (b"Basic opaque", b""),
        (b"", b""),
    ],
)
def test_bearer_tokens(value: bytes, expected: bytes) -> None:
    headers = [(b"Authorization", value)]
    assert account(headers, BEARER) == expected
    assert account_reference.from_bearer(headers, 64) == expected


def test_long_tokens_differ_by_their_end() -> None:
    tokens = [b"a" * 200 + b"%d" % i for i in range(3)]
    assert len({account([(b"Authorization", b"Bearer " + token)], BEARER) for token in tokens}) == 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Basic " + base64.b64encode(b"bob:pass:word"), b"bob"),
        (b"basic   " + base64.b64encode(b"bob:"), b"bob"),
        (b"Basic " + base64.b64encode(b"bobby:x").rstrip(b"="), b"bobby"),
        (b"Basic " + base64.b64encode("jürgen:x".encode()), "jürgen".encode()),
        (b"Basic " + base64.b64encode(b":x"), b""),
        (b"Basic " + base64.b64encode(b"bob"), b""),
        (b"Basic Ym9iOng", b"bob"),
        (b"Basic Ym9iOng===", b""),
        (b"Basic Ym9i!Ong", b""),
        (b"Basic Ym9iO", b""),
        (b"Basic", b""),
        (b"Basic =", b""),
        (b"Bearer Ym9iOng=", b""),
        (b"Basic " + base64.b64encode(b"u" * 4095 + b":"), b"u" * 64),
        (b"Basic " + base64.b64encode(b"u" * 4096 + b":"), b""),
    ],
)
def test_basic_user(value: bytes, expected: bytes) -> None:
    headers = [(b"Authorization", value)]
    assert account(headers, BASIC) == expected
    assert account_reference.from_basic(headers, 64) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["sub", "a"]), inner, max_size=3),
    max_leaves=8,
)

CLAIMS = st.dictionaries(st.sampled_from(["sub", "iss", "su", "subs", "Sub"]), JSON, max_size=4)


@given(CLAIMS, st.booleans(), st.integers(1, 80))
@example({"sub": "\ud83d"}, True, 64)
def test_subjects_as_the_reference(claims: dict[str, Any], escaped: bool, cap: int) -> None:
    try:
        payload = json.dumps(claims, ensure_ascii=escaped, indent=random.Random(1).choice([None, 1])).encode()
    except UnicodeEncodeError:
        return
    assert account(bearer(payload), BEARER, cap=cap) == account_reference.from_bearer(bearer(payload), cap)


@given(st.text(alphabet='{}[]":,sub\\u0 1ntrue.e-', max_size=30))
def test_any_payload_is_read_within_its_bounds(text: str) -> None:
    payload = ('{"sub":"a"' + text).encode()
    found = account(bearer(payload), BEARER)
    expected = account_reference.from_bearer(bearer(payload), 64)
    assert found in {expected, b"a"}  # values beside `sub` are not judged in full


@given(st.binary(max_size=40), st.integers(1, 30))
def test_users_as_the_reference(pair: bytes, cap: int) -> None:
    assert account(basic(pair), BASIC, cap=cap) == account_reference.from_basic(basic(pair), cap)


COOKIES = st.lists(st.text(alphabet='sid=;" \tab', max_size=20).map(str.encode), max_size=3)


@given(COOKIES, st.integers(1, 20))
def test_cookies_as_the_reference(lines: list[bytes], cap: int) -> None:
    headers = [(b"Cookie", line) for line in lines]
    assert account(headers, COOKIE, b"sid", cap) == account_reference.from_cookie(headers, b"sid", cap)


def test_addresses_of_one_64_are_one_client() -> None:
    net = int(ipaddress.IPv6Address("2001:db8:1:2::"))
    clients = set()
    for i in range(0, 65536, 257):
        line = str(ipaddress.IPv6Address(net + (i << 40) + i)).encode()
        _, client, *_ = _native.probe_chain(head(xff(line)), TABLE, packed(normal_address("10.0.0.1")), SOCKET)
        clients.add(_native.probe_address_client(client))
    assert clients == {net.to_bytes(16, "big")}
