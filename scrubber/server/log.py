"""What the processes say about themselves: one line each on stderr. (Requests and acts go to the access log.)

Owns: the form of those lines: time (UTC), who, level, message.
"""

from __future__ import annotations

import logging
import sys
import time


def setup(role: str, slot: int = -1, level: int = logging.INFO) -> logging.Logger:
    """The logger of this process, named `role` or `role[slot]`."""
    name = role if slot < 0 else f"{role}[{slot}]"
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.raiseExceptions = False  # a reader of stderr that went away must not take the process with it
    return logging.getLogger(name)
