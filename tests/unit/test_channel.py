"""The channel between keeper and children: framing, descriptors, limits."""

import os
import socket

import pytest

from scrubber.server import memfd
from scrubber.server.channel import FDS_MAX, MESSAGE_BYTES_MAX, Channel, ChannelClosed, ChannelError, ChannelFull
from scrubber.server.plan import ListenerPlan, Plan, Start


@pytest.fixture
def ends():
    ours, raw = Channel.pair()
    theirs = Channel(raw)
    yield ours, theirs
    ours.close()
    theirs.close()


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_message_boundaries_and_order(ends):
    ours, theirs = ends
    ours.send({"type": "a", "n": 1})
    ours.send({"type": "b", "text": "ü" * 100})
    assert theirs.receive().message == {"type": "a", "n": 1}
    assert theirs.receive().message["text"] == "ü" * 100
    assert theirs.receive() is None


def test_descriptors_arrive_close_on_exec_and_are_released(ends):
    ours, theirs = ends
    before = open_fds()
    fds = [memfd.sealed("x", bytes([65 + i])) for i in range(5)]
    ours.send({"type": "publish"}, fds)
    received = theirs.receive()
    assert [memfd.read_all(fd) for fd in received.fds] == [b"A", b"B", b"C", b"D", b"E"]
    assert not any(os.get_inheritable(fd) for fd in received.fds)
    assert all(memfd.is_sealed(fd) for fd in received.fds)
    received.close()
    for fd in fds:
        os.close(fd)
    assert open_fds() == before


def test_as_many_descriptors_as_allowed(ends):
    ours, theirs = ends
    fd = memfd.sealed("x", b"x")
    ours.send({"type": "start"}, [fd] * FDS_MAX)
    received = theirs.receive()
    assert len(received.fds) == FDS_MAX
    received.close()
    with pytest.raises(ChannelError, match="too large"):
        ours.send({"type": "start"}, [fd] * (FDS_MAX + 1))
    os.close(fd)


def test_too_large_is_refused_at_the_sender(ends):
    ours, _ = ends
    with pytest.raises(ChannelError, match="too large"):
        ours.send({"type": "x", "text": "y" * MESSAGE_BYTES_MAX})


@pytest.mark.parametrize(
    "data", [b"not json", b"[]", b"{}", b'{"type": 3}', b"\xff\xfe", b"x" * (MESSAGE_BYTES_MAX + 100)]
)
def test_what_is_no_message_is_an_error_and_its_descriptors_are_closed(data):
    ours, raw = Channel.pair()
    before = open_fds()
    with raw:
        fd = memfd.sealed("x", b"x")
        socket.send_fds(raw, [data], [fd])
        os.close(fd)
        with pytest.raises(ChannelError):
            ours.receive()
        assert open_fds() == before
    ours.close()


def test_the_end_of_the_peer(ends):
    ours, theirs = ends
    theirs.close()
    with pytest.raises(ChannelClosed):
        ours.receive()
    with pytest.raises(ChannelClosed):
        ours.send({"type": "x"})


def test_a_peer_that_does_not_read_is_an_error_not_a_stall(ends):
    ours, _ = ends

    def fill() -> None:
        for _ in range(100_000):
            ours.send({"type": "x"})

    with pytest.raises(ChannelFull):
        fill()


def test_wait_ends(ends):
    ours, theirs = ends
    with pytest.raises(ChannelError, match="within"):
        theirs.wait(0.01)
    ours.send({"type": "start"})
    assert theirs.wait(1).type == "start"


def test_start_message_survives_the_channel(ends):
    ours, theirs = ends
    fds = {
        "policy": memfd.sealed("p", b"policy"),
        "listener.0": memfd.sealed("l", b"l0"),
        "region.gauges": memfd.plain("g", 16),
    }
    fds |= {f"prefix.{i}": memfd.sealed("x", b"%d" % i) for i in range(11)}
    sent = Start("worker", 1, 42, 2, 7, [ListenerPlan("::1", 8080)], {"a": 1}, [], fds)
    ours.send(*sent.to_message())
    start = Start.from_received(theirs.receive())
    assert (start.role, start.slot, start.generation, start.listeners) == ("worker", 1, 7, [ListenerPlan("::1", 8080)])
    assert [memfd.read_all(fd) for fd in start.prefixes()] == [b"%d" % i for i in range(11)]
    assert memfd.read_all(start.fds["policy"]) == b"policy"
    assert list(start.regions()) == ["gauges"]
    assert len(start.listener_fds()) == 1
    for fd in (*fds.values(), *start.fds.values()):
        os.close(fd)


def test_another_message_is_no_start(ends):
    ours, theirs = ends
    ours.send({"type": "drain", "deadline_s": 1})
    with pytest.raises(ValueError, match="start"):
        Start.from_received(theirs.receive())


def test_plan_survives_its_memory_file():
    regions = {"gauges": memfd.plain("g", 4096)}
    lock = memfd.plain("lock", 0)
    policy = memfd.sealed("p", b"p")
    plan = Plan(
        {"worker": ["w"], "supervisor": ["s"]},
        2,
        [ListenerPlan("127.0.0.1", 0)],
        regions,
        policy,
        [],
        1,
        4096,
        256,
        lock,
        10.0,
        "site",
        "/run/x.sock",
        {"k": "v"},
    )
    fd = plan.to_fd()
    assert os.get_inheritable(policy)
    assert memfd.is_sealed(fd)
    assert Plan.from_fd(fd) == plan
    assert not os.get_inheritable(policy)
    for each in (policy, lock, *regions.values()):
        os.close(each)


def test_a_plan_of_another_version_is_refused():
    with pytest.raises(ValueError, match="version"):
        Plan.from_fd(memfd.sealed("plan", b'{"version": 0}'))


def test_a_plain_file_is_not_sealed(tmp_path):
    fd = os.open(tmp_path / "f", os.O_CREAT | os.O_RDWR)
    assert not memfd.is_sealed(fd)
    os.close(fd)
    fd = memfd.plain("x", 10)
    assert not memfd.is_sealed(fd)
    os.close(fd)
    fd = memfd.sealed("x", b"abc")
    with pytest.raises(PermissionError):
        os.write(fd, b"d")
    os.close(fd)
