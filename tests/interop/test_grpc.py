"""gRPC through the gateway: a grpcio server behind it, asked in clear text by prior knowledge, grpcio clients before it
over TLS. Messages are bytes, so that no code has to be made for them.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import pytest

from tests import wanted
from tests.e2e.certificates import authority, signed
from tests.e2e.proxy import Proxy
from tests.e2e.support import SLOW, open_way, until
from tests.interop.conftest import settled

grpc = wanted.package("grpc")

SITE = "site.test"
LARGE = bytes(range(256)) * (16 * 1024)  # 4 MiB
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
TIMEOUT_S = 20 * SLOW


class Service:
    """What the server does, and what it saw."""

    def __init__(self) -> None:
        self.metadata: dict[str, str | bytes] = {}
        self.peer = ""
        self.ended = threading.Event()  # a call that was given up is known as such here

    def echo(self, message: bytes, context: Any) -> bytes:
        self.metadata = dict(context.invocation_metadata())
        context.send_initial_metadata((("x-before", "early"), ("x-before-bin", b"\x00\xff\n")))
        context.set_trailing_metadata((("x-after", "late"), ("x-after-bin", bytes(range(256)))))
        return message

    def count(self, message: bytes, context: Any) -> Iterator[bytes]:
        for number in range(int(message)):
            yield b"%d" % number

    def gather(self, messages: Iterator[bytes], context: Any) -> bytes:
        digest, count = hashlib.sha256(), 0
        for message in messages:
            digest.update(message)
            count += 1
        return f"{count} {digest.hexdigest()}".encode()

    def talk(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for message in messages:
            yield message[::-1]

    def fail(self, message: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("x-reason", "tests"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not so: ä % \n end")
        raise AssertionError

    def fail_late(self, message: bytes, context: Any) -> Iterator[bytes]:
        yield b"one"
        yield b"two"
        context.abort(grpc.StatusCode.DATA_LOSS, "the rest is gone")

    def wait(self, message: bytes, context: Any) -> Iterator[bytes]:
        context.add_callback(self.ended.set)
        yield b"begun"
        self.ended.wait(TIMEOUT_S)


def handlers(service: Service) -> Any:
    kinds = {
        "echo": grpc.unary_unary_rpc_method_handler,
        "fail": grpc.unary_unary_rpc_method_handler,
        "count": grpc.unary_stream_rpc_method_handler,
        "fail_late": grpc.unary_stream_rpc_method_handler,
        "wait": grpc.unary_stream_rpc_method_handler,
        "gather": grpc.stream_unary_rpc_method_handler,
        "talk": grpc.stream_stream_rpc_method_handler,
    }
    found = {name: make(getattr(service, name)) for name, make in kinds.items()}
    return grpc.method_handlers_generic_handler("tests.Service", found)


@pytest.fixture(scope="module")
def service() -> Service:
    return Service()


@pytest.fixture(scope="module")
def front(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    server = grpc.server(futures.ThreadPoolExecutor(20), options=UNLIMITED)
    server.add_generic_rpc_handlers((handlers(service),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    home = tmp_path_factory.mktemp("grpc")
    signed(SITE).write(home, "site")
    open_way(home)
    try:
        with Proxy(
            workers=2,
            listener="tls = true",
            origins=[f'{{ address = "127.0.0.1:{port}", protocol = "h2c" }}'],
            extra=f'[area.tls]\ncertificates = {{ chain = "{home}/site.pem", key = "{home}/site.key" }}\n',
        ) as found:
            yield found
            settled(found)
    finally:
        server.stop(0).wait()


@pytest.fixture(scope="module")
def channel(front: Proxy) -> Iterator[Any]:
    trust = grpc.ssl_channel_credentials(root_certificates=authority().pem)
    options = [("grpc.ssl_target_name_override", SITE), ("grpc.default_authority", SITE), *UNLIMITED]
    with grpc.secure_channel(f"127.0.0.1:{front.port}", trust, options) as found:
        yield found


def method(channel: Any, kind: str, name: str) -> Callable[..., Any]:
    """A method by its kind: unary_unary, …"""
    found: Callable[..., Any] = getattr(channel, kind)(f"/tests.Service/{name}")
    return found


def test_unary(channel: Any) -> None:
    echo = method(channel, "unary_unary", "echo")
    for message in (b"", b"a", b"\x00" * 100, bytes(range(256)) * 300):
        assert echo(message, timeout=TIMEOUT_S) == message


def test_metadata_and_trailers(channel: Any, service: Service, front: Proxy) -> None:
    echo = method(channel, "unary_unary", "echo")
    sent = (("x-own", "a value"), ("x-own-bin", b"\x00\x01\xfe\xff"), ("authorization", "Bearer abc"))
    answer, call = echo.with_call(b"hello", timeout=TIMEOUT_S, metadata=sent)  # type: ignore[attr-defined]
    assert answer == b"hello"
    before, after = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert (before["x-before"], before["x-before-bin"]) == ("early", b"\x00\xff\n")
    assert (after["x-after"], after["x-after-bin"]) == ("late", bytes(range(256)))
    assert call.code() is grpc.StatusCode.OK
    for name, value in sent:
        assert service.metadata[name] == value
    assert service.metadata["x-forwarded-for"] == "127.0.0.1"
    line = front.lines("/tests.Service/echo")[-1]
    assert (line["http.version"], line["http.response.status_code"]) == ("2", 200)


def test_large_messages(channel: Any) -> None:
    assert method(channel, "unary_unary", "echo")(LARGE, timeout=TIMEOUT_S) == LARGE


def test_server_streaming(channel: Any) -> None:
    count = method(channel, "unary_stream", "count")
    assert list(count(b"500", timeout=TIMEOUT_S)) == [b"%d" % number for number in range(500)]
    assert list(count(b"0", timeout=TIMEOUT_S)) == []


def test_client_streaming(channel: Any) -> None:
    pieces = [bytes([number]) * 5000 for number in range(200)]
    said = method(channel, "stream_unary", "gather")(iter(pieces), timeout=TIMEOUT_S)
    assert said == f"200 {hashlib.sha256(b''.join(pieces)).hexdigest()}".encode()


def test_bidirectional(channel: Any) -> None:
    """Each message is sent only after the answer to the one before it: nothing may be held back either way."""
    got: list[bytes] = []
    came = threading.Condition()

    def messages() -> Iterator[bytes]:
        for number in range(50):
            with came:
                assert came.wait_for(lambda: len(got) == number, TIMEOUT_S)  # noqa: B023
            yield b"message %d" % number

    for answer in method(channel, "stream_stream", "talk")(messages(), timeout=TIMEOUT_S):
        with came:
            got.append(answer)
            came.notify_all()
    assert got == [(b"message %d" % number)[::-1] for number in range(50)]


def test_errors(channel: Any) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        method(channel, "unary_unary", "fail")(b"", timeout=TIMEOUT_S)
    assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert failed.value.details() == "not so: ä % \n end"
    assert dict(failed.value.trailing_metadata())["x-reason"] == "tests"
    got = []
    with pytest.raises(grpc.RpcError) as failed:  # noqa: PT012
        for message in method(channel, "unary_stream", "fail_late")(b"", timeout=TIMEOUT_S):
            got.append(message)
    assert got == [b"one", b"two"]
    assert failed.value.code() is grpc.StatusCode.DATA_LOSS
    with pytest.raises(grpc.RpcError) as failed:
        method(channel, "unary_unary", "nobody's")(b"", timeout=TIMEOUT_S)
    assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("how", ["deadline", "cancelled"])
def test_calls_that_are_given_up(channel: Any, service: Service, how: str) -> None:
    """The server learns of it, and the connection goes on."""
    service.ended.clear()
    began = time.monotonic()
    call = method(channel, "unary_stream", "wait")(b"", timeout=0.5 * SLOW if how == "deadline" else TIMEOUT_S)
    assert next(call) == b"begun"
    if how == "cancelled":
        call.cancel()
    with pytest.raises(grpc.RpcError) as failed:
        next(call)
    expected = grpc.StatusCode.DEADLINE_EXCEEDED if how == "deadline" else grpc.StatusCode.CANCELLED
    assert failed.value.code() is expected
    assert service.ended.wait(5 * SLOW)
    assert time.monotonic() - began < 5 * SLOW
    assert method(channel, "unary_unary", "echo")(b"and on", timeout=TIMEOUT_S) == b"and on"


def test_many_calls_at_once(channel: Any, front: Proxy) -> None:
    before = front.metric("scrubber_connections_accepted_total")
    echo = method(channel, "unary_unary", "echo")
    calls = [echo.future(b"%d" % number * 100, timeout=TIMEOUT_S) for number in range(300)]  # type: ignore[attr-defined]
    assert [call.result() for call in calls] == [b"%d" % number * 100 for number in range(300)]
    assert front.metric("scrubber_connections_accepted_total") == before
    until(lambda: front.gauge("requests_in_flight") == 0, 10, "requests that stay")
