"""A child for the keeper's tests: beats as a worker or a supervisor does, and misbehaves as its settings say.

settings["events"]: a directory in which it notes what it sees. settings["mode"] by role: "" (well), "exit" (at
once), "mute" (never
beats), "broken" (sends what is no message).
"""

import json
import mmap
import os
import signal
import struct
import sys
import time
from pathlib import Path

from scrubber.server import child, memfd
from scrubber.server.channel import ChannelClosed


def main() -> None:
    channel, start = child.begin(sys.argv)
    mode = start.settings["mode"].get(start.role, "")
    events = Path(start.settings["events"]) / f"{start.role}{max(start.slot, 0)}"

    def note(**what: object) -> None:
        with events.open("a") as file:
            file.write(json.dumps({"pid": os.getpid(), **what}) + "\n")

    if mode == "exit":
        sys.exit(3)
    fd, offset = (start.fds["beat"], 0) if start.slot < 0 else (start.fds["region.gauges"], 4096 + start.slot * 256)
    page = mmap.mmap(fd, 0)
    note(
        event="start",
        generation=start.generation,
        listeners=[each.port for each in start.listeners],
        policy=memfd.read_all(start.fds["policy"]).decode(),
        slot_was_zero=page[offset : offset + 256] == bytes(256),
        fds=sorted(int(each) for each in os.listdir("/proc/self/fd")),
        sigpipe_ignored=signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN,
    )
    if start.slot >= 0:
        page[offset + 8 : offset + 256] = b"\xff" * 248
    if mode == "broken":
        channel._sock.send(b"not json")
    published = False
    while True:
        if mode != "mute":
            struct.pack_into("<Q", page, offset, time.monotonic_ns())
        if start.slot < 0 and not published and "publish" in start.settings:
            published = True
            made = memfd.sealed("p", b"second") if start.settings["publish"] == "sealed" else memfd.plain("p", 10)
            message = {"type": "publish", "generation": start.generation + 1, "stop_deadline_s": 5.0}
            channel.send({**message, "listeners": [each.index for each in start.listeners]}, [made])
        try:
            received = channel.receive()
        except ChannelClosed:
            return
        if received is None:
            time.sleep(0.02)
            continue
        note(
            event=received.type, message=received.message, contents=[memfd.read_all(fd).decode() for fd in received.fds]
        )
        received.close()
        if received.type == "drain" and not start.settings.get("stubborn"):
            return


main()
