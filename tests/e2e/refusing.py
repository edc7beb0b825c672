"""A gateway whose workers refuse the second policy: `refusing.py GATEWAY.toml` stands in for `scrubber run`.

Started by the keeper with "worker" it is such a worker: maps the memory, beats, takes every other policy, serves
nobody.
"""

from __future__ import annotations

import sys
import time

from scrubber import _native
from scrubber.mandate.load import load_all
from scrubber.server import child, start
from scrubber.server.channel import ChannelClosed

REFUSED = 2


def work() -> None:
    channel, begun = child.begin(sys.argv)
    memory = _native.Memory(begun.regions(), begun.slot)
    print(f"worker: started with policy {begun.generation}", file=sys.stderr, flush=True)
    while True:
        memory.beat()
        try:
            received = channel.receive()
        except ChannelClosed:
            return
        if received is None:
            time.sleep(0.02)
        elif received.type == "drain":
            return
        else:
            generation = received.message["generation"]
            policy = _native.Policy(received.fds[0], received.fds[1:])
            print(f"worker: was given policy {policy.generation}", file=sys.stderr, flush=True)
            if generation == REFUSED:
                memory.refuse_generation(generation)
            received.close()


if sys.argv[1] == "worker":
    work()
else:
    plan = start.prepare(load_all(sys.argv[1]))
    plan.roles["worker"] = [sys.executable, __file__, "worker"]
    start.become_keeper(plan)
