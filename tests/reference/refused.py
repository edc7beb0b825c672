"""What has to be refused, by the name of its reason: one table for the parsers and for whatever goes through a gateway.

Owns: the tables, and `requests`, which makes whole requests of those that a client sends.
"""

from __future__ import annotations

from dataclasses import dataclass

# What stands before the fields, and the reason by which it is refused.
REQUEST_LINES: dict[str, tuple[bytes, str]] = {
    "empty method": (b" / HTTP/1.1\r\n", "bad_method"),
    "method too long": (b"A" * 33 + b" / HTTP/1.1\r\n", "method_refused"),
    "lower-case get": (b"get / HTTP/1.1\r\n", "method_refused"),
    "mixed-case post": (b"PoST / HTTP/1.1\r\n", "method_refused"),
    "connect": (b"CONNECT a:443 HTTP/1.1\r\n", "method_refused"),
    "trace": (b"TRACE / HTTP/1.1\r\n", "method_refused"),
    "space before the method": (b" GET / HTTP/1.1\r\n", "bad_method"),
    "two spaces before the target": (b"GET  / HTTP/1.1\r\n", "bad_target"),
    "two spaces before the version": (b"GET /  HTTP/1.1\r\n", "bad_version"),
    "tab before the target": (b"GET\t/ HTTP/1.1\r\n", "bad_method"),
    "tab before the version": (b"GET /\tHTTP/1.1\r\n", "bad_target"),
    "trailing space": (b"GET / HTTP/1.1 \r\n", "bad_version"),
    "HTTP/0.9": (b"GET /\r\n", "bad_version"),
    "HTTP/0.9 spelled": (b"GET / HTTP/0.9\r\n", "version_unsupported"),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\n", "version_unsupported"),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\n", "version_unsupported"),
    "HTTP/2": (b"GET / HTTP/2\r\n", "bad_version"),
    "HTTP/1": (b"GET / HTTP/1\r\n", "bad_version"),
    "HTTP/1.10": (b"GET / HTTP/1.10\r\n", "bad_version"),
    "HTTP/01.1": (b"GET / HTTP/01.1\r\n", "bad_version"),
    "lower-case http": (b"GET / http/1.1\r\n", "bad_version"),
    "another protocol": (b"GET / ICE/1.0\r\n", "bad_version"),
    "space in version": (b"GET / HTTP/ 1.1\r\n", "bad_version"),
    "fragment": (b"GET /a#b HTTP/1.1\r\n", "bad_target"),
    "no slash": (b"GET a HTTP/1.1\r\n", "bad_target"),
    "authority form": (b"GET example.org:80 HTTP/1.1\r\n", "bad_target"),
    "asterisk with GET": (b"GET * HTTP/1.1\r\n", "bad_target"),
    "asterisk and more": (b"OPTIONS *a HTTP/1.1\r\n", "bad_target"),
    "raw utf-8": ("GET /ä HTTP/1.1\r\n".encode(), "bad_target"),
    "NUL": (b"GET /\0 HTTP/1.1\r\n", "bad_target"),
    "DEL": (b"GET /\x7f HTTP/1.1\r\n", "bad_target"),
    "backslash in path": (b"GET /a\\b HTTP/1.1\r\n", "bad_target"),
    "another scheme": (b"GET ftp://example.org/ HTTP/1.1\r\n", "bad_target"),
    "absolute, no host": (b"GET http:/// HTTP/1.1\r\n", "bad_target"),
    "absolute, nothing": (b"GET http:// HTTP/1.1\r\n", "bad_target"),
    "absolute, userinfo": (b"GET http://u@example.org/ HTTP/1.1\r\n", "bad_target"),
    "absolute, bad port": (b"GET http://example.org:0/ HTTP/1.1\r\n", "bad_target"),
    "absolute, query without path": (b"GET http://example.org?q HTTP/1.1\r\n", "bad_target"),
    "absolute OPTIONS without path": (b"OPTIONS http://example.org HTTP/1.1\r\n", "bad_target"),
    "absolute, another host": (b"GET http://other.org/ HTTP/1.1\r\n", "host_mismatch"),
    "absolute, longer host": (b"GET http://example.org.evil/ HTTP/1.1\r\n", "host_mismatch"),
    "absolute, another port": (b"GET http://example.org:81/ HTTP/1.1\r\n", "host_mismatch"),
    "absolute https, port 80": (b"GET https://example.org:80/ HTTP/1.1\r\n", "host_mismatch"),
    "bare LF": (b"GET / HTTP/1.1\n", "bad_line_end"),
    "bare CR": (b"GET / HTTP/1.1\rX", "bad_line_end"),
    "CR CR LF": (b"GET / HTTP/1.1\r\r\n", "bad_line_end"),
    "two empty lines first": (b"\r\n\r\nGET / HTTP/1.1\r\n", "bad_line_end"),
    "LF first": (b"\nGET / HTTP/1.1\r\n", "bad_line_end"),
    "CR first": (b"\rGET / HTTP/1.1\r\n", "bad_line_end"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "bad_method"),
}

# Field lines behind one sound Host.
REQUEST_FIELDS: dict[str, tuple[list[bytes], str]] = {
    "space before colon": ([b"X-A : v"], "bad_header_name"),
    "tab before colon": ([b"X-A\t: v"], "bad_header_name"),
    "empty name": ([b": v"], "bad_header_name"),
    "no colon": ([b"X-A"], "bad_header_name"),
    "bracket in name": ([b"X[A: v"], "bad_header_name"),
    "obs-fold": ([b"X-A: v", b" w"], "obs_fold"),
    "obs-fold by tab": ([b"X-A: v", b"\tw"], "obs_fold"),
    "obs-fold of nothing": ([b"X-A: v", b" "], "obs_fold"),
    "high byte in name": ([b"X-\xe4: v"], "bad_header_name"),
    "CGI twin of X-Forwarded-For": ([b"X_Forwarded-for: 1.2.3.4"], "bad_header_name"),
    "CGI twin of Content-Length": ([b"Content_Length: 4"], "bad_header_name"),
    "CGI twin of Transfer-Encoding": ([b"Transfer_Encoding: chunked"], "bad_header_name"),
    "length repeated": ([b"Content-Length: 4", b"Content-Length: 4"], "bad_content_length"),
    "lengths differ": ([b"Content-Length: 4", b"content-length: 5"], "bad_content_length"),
    "length listed": ([b"Content-Length: 4, 4"], "bad_content_length"),
    "length signed": ([b"Content-Length: +4"], "bad_content_length"),
    "length negative": ([b"Content-Length: -4"], "bad_content_length"),
    "length negative zero": ([b"Content-Length: -0"], "bad_content_length"),
    "length empty": ([b"Content-Length:"], "bad_content_length"),
    "length hex": ([b"Content-Length: 0x4"], "bad_content_length"),
    "length with space": ([b"Content-Length: 4 4"], "bad_content_length"),
    "length with underscore": ([b"Content-Length: 1_0"], "bad_content_length"),
    "length fraction": ([b"Content-Length: 4.0"], "bad_content_length"),
    "length 2^63": ([b"Content-Length: 9223372036854775808"], "bad_content_length"),
    "length 2^64+4": ([b"Content-Length: 18446744073709551620"], "bad_content_length"),
    "length in other digits": (["Content-Length: \u0664".encode()], "bad_content_length"),
    "length and chunked": ([b"Content-Length: 4", b"Transfer-Encoding: chunked"], "length_and_chunked"),
    "chunked and length": ([b"Transfer-Encoding: chunked", b"Content-Length: 4"], "length_and_chunked"),
    "identity": ([b"Transfer-Encoding: identity"], "bad_transfer_encoding"),
    "gzip, chunked": ([b"Transfer-Encoding: gzip, chunked"], "bad_transfer_encoding"),
    "chunked, gzip": ([b"Transfer-Encoding: chunked, gzip"], "bad_transfer_encoding"),
    "chunked twice": ([b"Transfer-Encoding: chunked, chunked"], "bad_transfer_encoding"),
    "chunked in two lines": ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], "bad_transfer_encoding"),
    "xchunked": ([b"Transfer-Encoding: xchunked"], "bad_transfer_encoding"),
    "quoted chunked": ([b'Transfer-Encoding: "chunked"'], "bad_transfer_encoding"),
    "comma first": ([b"Transfer-Encoding: , chunked"], "bad_transfer_encoding"),
    "comma last": ([b"Transfer-Encoding: chunked,"], "bad_transfer_encoding"),
    "parameter": ([b"Transfer-Encoding: chunked;q=1"], "bad_transfer_encoding"),
    "space after chunked": ([b"Transfer-Encoding: chunked "], "bad_transfer_encoding"),
    "tab after chunked": ([b"Transfer-Encoding: chunked\t"], "bad_transfer_encoding"),
    "empty coding": ([b"Transfer-Encoding:"], "bad_transfer_encoding"),
    "vertical tab": ([b"Transfer-Encoding: \x0bchunked"], "bad_header_value"),
    "host repeated": ([b"Host: example.org"], "duplicate_host"),
    "other host": ([b"Host: other.org"], "duplicate_host"),
    "connection names host": ([b"Connection: close, Host"], "bad_connection"),
    "connection names length": ([b"Content-Length: 3", b"Connection: content-length"], "bad_connection"),
    "connection names coding": ([b"Connection: transfer-encoding"], "bad_connection"),
    "connection names cookie": ([b"Connection: cookie"], "bad_connection"),
    "connection names authorization": ([b"Connection: Authorization"], "bad_connection"),
    "connection names x-forwarded-for": ([b"Connection: X-Forwarded-For"], "bad_connection"),
    "connection names forwarded": ([b"Connection: forwarded"], "bad_connection"),
    "connection names content-type": ([b"Connection: Content-Type"], "bad_connection"),
    "connection names cache-control": ([b"Connection: cache-control"], "bad_connection"),
    "connection names itself": ([b"Connection: connection"], "bad_connection"),
    "connection is no token": ([b"Connection: a b"], "bad_connection"),
    "connection is quoted": ([b'Connection: "close"'], "bad_connection"),
    "connection names too much": ([b"Connection: " + b",".join(b"a%d" % i for i in range(17))], "bad_connection"),
    "expect something": ([b"Expect: 200-ok"], "bad_expect"),
    "expect twice": ([b"Expect: 100-continue, x"], "bad_expect"),
    "expect in two lines": ([b"Expect: 100-continue", b"Expect: y"], "bad_expect"),
    "expect nothing": ([b"Expect:"], "bad_expect"),
    "upgrade is no token": ([b"Connection: upgrade", b"Upgrade: web socket"], "bad_upgrade"),
    "upgrade to nothing": ([b"Connection: upgrade", b"Upgrade:"], "bad_upgrade"),
    "upgrade with an empty version": ([b"Connection: upgrade", b"Upgrade: h2c/"], "bad_upgrade"),
}  # fmt: skip

# Whole heads whose lines end in another way than CRLF: bad_line_end.
LINE_ENDS: dict[str, bytes] = {
    "LF after a header": b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "LF at the end": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "LF LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "CR in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n",
    "CR after a header": b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
    "CR and something at the end": b"GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n",
    "CR CR LF": b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
}

# Values of Host: bad_host, in HTTP/1.0 too.
HOSTS: list[bytes] = [
    b"", b":80", b"a:", b"a:0", b"a:65536", b"a:99999", b"a:000080", b"a:+80", b"a:8 0", b"a:80:80", b"a b", b"a,b",
    b"u@a", b"u:p@a",
    b"a/b", b"a?b", b"a#b", b"a\\b", b"http://a", b"a..b", b".a", b".", b"..", b"a%20b", b"a;b", b"a=b", b"(a)", b"<a>",
    b'"a"', b"a\xe4", b"[",
    b"[]", b"[::1", b"::1", b"[1.2.3.4]", b"[::1]a", b"[::1]:", b"[::1]:0", b"[fe80::1%25eth0]", b"[v1.a]", b"[::g]",
    b"a]", b"*", b"*.a",
    b"a\tb", b"a" * 256, b"a:b",
]  # fmt: skip

# Chunked bodies: bad_chunk.
CHUNKS: list[bytes] = [
    b"\r\n", b"\n", b" 5\r\nhello\r\n", b"5 \r\nhello\r\n", b"5\t\r\nhello\r\n", b"+5\r\nhello\r\n", b"-5\r\nhello\r\n",
    b"0x5\r\nhello\r\n",
    b"5h\r\nhello\r\n", b"g\r\n", b"5_\r\n", b"5\nhello\r\n", b"5\rhello\r\n", b"5\r\rhello\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5\r\nhello\r0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"5\r\nhello!!\r\n0\r\n\r\n", b"5\r\nhello \r\n0\r\n\r\n",
    b"3\r\nfoo\r\n\r\n",
    b"00000000000000000\r\n", b"00000000000000005\r\n", b"8000000000000000\r\n", b"ffffffffffffffff\r\n",
    b"10000000000000005\r\n",
    b"5;\r\nhello\r\n", b"5;;a\r\n", b"5;a;\r\n", b"5;=b\r\n", b"5;a=\r\n", b"5;a=;b\r\n", b"5;a=b=c\r\n", b"5; a\r\n",
    b"5;a =b\r\n", b"5;a= b\r\n",
    b"5;a b\r\n", b"5 ;a\r\n", b'5;a="b\r\n', b'5;a="b"c\r\n', b'5;a=b"c"\r\n', b'5;a="\x00"\r\n', b'5;a="\\\n"\r\n',
    b'5;"a"\r\n', b"5;a\x00\r\n",
    b"5;a\n", b"5;a\xe4\r\n", b"5;a=\xe4\r\n", b"5;a,b\r\n", b"5,6\r\n", "\u0665\r\n".encode(),
]  # fmt: skip

# Trailer sections behind the last chunk: bad_trailer.
TRAILERS: list[bytes] = [
    b" X: y\r\n", b"\tX: y\r\n", b": y\r\n", b"X : y\r\n", b"X\r\n", b"X: y\n", b"X: y\rz", b"X: \x00\r\n",
    b"X: \x0c\r\n", b"X: \x7f\r\n",
    b"X[: y\r\n", b"X: y\r\n z\r\n", b"\n", b"\rX", b"Content-Length: 5\r\n", b"content-length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n", b"Trailer: X\r\n", b"Connection: close\r\n", b"TE: x\r\n", b"Upgrade: x\r\n", b"Expect: x\r\n",
    b"Cookie: x\r\n",
    b"Authorization: x\r\n", b"X-Forwarded-For: 1.2.3.4\r\n", b"Forwarded: for=1.2.3.4\r\n", b"X: y\r\nHost: b\r\n",
    b"Content_Length: 5\r\n",
    b"X-Real-IP: 1.2.3.4\r\n", b"Range: x\r\n", b"GET / HTTP/1.1\r\n",
]  # fmt: skip

# First lines of answers; a CRLF follows.
STATUS_LINES: dict[str, tuple[bytes, str]] = {
    "099": (b"HTTP/1.1 099 X", "bad_status"),
    "000": (b"HTTP/1.1 000 X", "bad_status"),
    "600": (b"HTTP/1.1 600 X", "bad_status"),
    "two digits": (b"HTTP/1.1 20 X", "bad_status"),
    "four digits": (b"HTTP/1.1 2000 X", "bad_status"),
    "sign": (b"HTTP/1.1 +20 X", "bad_status"),
    "two spaces": (b"HTTP/1.1  200 X", "bad_status"),
    "tab": (b"HTTP/1.1\t200 X", "bad_status"),
    "tab after": (b"HTTP/1.1 200\tX", "bad_status"),
    "no status": (b"HTTP/1.1", "bad_status"),
    "HTTP/1.2": (b"HTTP/1.2 200 OK", "version_unsupported"),
    "HTTP/2.0": (b"HTTP/2.0 200 OK", "version_unsupported"),
    "HTTP/0.9": (b"HTTP/0.9 200 OK", "version_unsupported"),
    "lower-case": (b"http/1.1 200 OK", "bad_version"),
    "ICY": (b"ICY 200 OK long enough", "bad_version"),
    "no head at all": (b"<html>hello</html>", "bad_version"),
    "space first": (b" HTTP/1.1 200 OK", "bad_version"),
    "NUL in reason": (b"HTTP/1.1 200 O\0K", "bad_status"),
    "form feed in reason": (b"HTTP/1.1 200 O\x0cK", "bad_status"),
    "DEL in reason": (b"HTTP/1.1 200 O\x7fK", "bad_status"),
    "CR in reason": (b"HTTP/1.1 200 O\rK", "bad_line_end"),
    "empty line first": (b"\r\nHTTP/1.1 200 OK", "bad_version"),
    "LF": (b"HTTP/1.1 200 OK\nX: y", "bad_line_end"),
}

# Field lines of answers.
RESPONSE_FIELDS: dict[str, tuple[list[bytes], str]] = {
    "length and chunked": ([b"Content-Length: 4", b"Transfer-Encoding: chunked"], "length_and_chunked"),
    "length repeated": ([b"Content-Length: 4", b"Content-Length: 4"], "bad_content_length"),
    "length listed": ([b"Content-Length: 4, 4"], "bad_content_length"),
    "length negative": ([b"Content-Length: -1"], "bad_content_length"),
    "gzip": ([b"Transfer-Encoding: gzip"], "bad_transfer_encoding"),
    "gzip, chunked": ([b"Transfer-Encoding: gzip, chunked"], "bad_transfer_encoding"),
    "chunked twice": ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], "bad_transfer_encoding"),
    "obs-fold": ([b"X-A: b", b" c"], "obs_fold"),
    "space before colon": ([b"X-A : b"], "bad_header_name"),
    "empty name": ([b": b"], "bad_header_name"),
    "NUL": ([b"X-A: \0"], "bad_header_value"),
    "form feed": ([b"X-A: \x0c"], "bad_header_value"),
    "connection names set-cookie": ([b"Connection: Set-Cookie"], "bad_connection"),
    "connection names content-length": ([b"Content-Length: 4", b"Connection: Content-Length"], "bad_connection"),
    "connection names content-encoding": ([b"Connection: content-encoding"], "bad_connection"),
}


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that must not pass."""

    data: bytes
    reason: str
    body: bool = False  # the head is sound, so that it may have gone on before the body is known to be wrong


HOST = b"Host: example.org\r\n"
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
CONTROLS = [byte for byte in (*range(0x20), 0x7F) if byte != 0x09]


def _get(*lines: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def _bytes() -> dict[str, Refused]:
    """Each byte that may not stand in a name, a value, a target, a method."""
    found = {}
    for byte in range(256):
        b = bytes([byte])
        if byte not in TOKEN and b != b":":
            found[f"0x{byte:02x} in a name"] = Refused(_get(b"X" + b + b"A: v"), "bad_header_name")
        if byte not in TOKEN and b != b" ":
            found[f"0x{byte:02x} in a method"] = Refused(_get().replace(b"GET", b"GE" + b + b"T"), "bad_method")
        if byte in CONTROLS:
            reason = "bad_line_end" if byte in b"\r\n" else "bad_header_value"
            found[f"0x{byte:02x} in a value"] = Refused(_get(b"X-A: v" + b + b"w"), reason)
        if byte in CONTROLS or byte > 0x7F or byte in b"\t#":
            reason = "bad_version" if byte in b"\r\n" else "bad_target"
            found[f"0x{byte:02x} in a target"] = Refused(_get().replace(b"/ ", b"/a" + b + b"b ", 1), reason)
    return found


def _too_much() -> dict[str, Refused]:
    """Beyond the limits of a gateway file that names none."""
    return {
        "line too long": Refused(_get().replace(b"/ ", b"/" + b"a" * 9000 + b" ", 1), "line_too_long"),
        "field too long": Refused(_get(b"X: " + b"a" * 9000), "head_too_large"),
        "head too long": Refused(_get(*[b"X: " + b"a" * 4000] * 5), "head_too_large"),
        "too many fields": Refused(_get(*[b"X: a"] * 128), "too_many_headers"),
        "chunk extension too long": Refused(CHUNKED + b"1;a=" + b"b" * 4000 + b"\r\nx\r\n0\r\n\r\n", "bad_chunk", True),
        "trailers too long": Refused(
            CHUNKED + b"0\r\n" + (b"X: " + b"v" * 87 + b"\r\n") * 60 + b"\r\n", "bad_trailer", True
        ),
        "one trailer too long": Refused(CHUNKED + b"0\r\nX: " + b"v" * 9000 + b"\r\n\r\n", "bad_trailer", True),
    }


def requests() -> dict[str, Refused]:
    """Whole requests, by what is wrong with them."""
    return {
        **{name: Refused(line + HOST + b"\r\n", reason) for name, (line, reason) in REQUEST_LINES.items()},
        **{name: Refused(_get(*lines), reason) for name, (lines, reason) in REQUEST_FIELDS.items()},
        **{name: Refused(data, "bad_line_end") for name, data in LINE_ENDS.items()},
        **{
            f"Host {host[:40]!r}": Refused(_get().replace(HOST, b"Host: " + host + b"\r\n"), "bad_host")
            for host in HOSTS
        },
        "no Host": Refused(_get().replace(HOST, b""), "missing_host"),
        "no Host beside an absolute target": Refused(b"GET http://a/ HTTP/1.1\r\n\r\n", "missing_host"),
        "HTTP/1.0, chunked": Refused(CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0"), "bad_transfer_encoding"),
        **{f"chunk {data[:40]!r}": Refused(CHUNKED + data, "bad_chunk", True) for data in CHUNKS},
        **{
            f"trailer {data!r}": Refused(CHUNKED + b"1\r\nx\r\n0\r\n" + data + b"\r\n", "bad_trailer", True)
            for data in TRAILERS
        },
        **_bytes(),
        **_too_much(),
    }
