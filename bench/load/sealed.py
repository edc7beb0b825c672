"""Whether this process is in a network that its run has made and that leads nowhere else.

Owns: how such networks are called, and the proof. Invariant: nothing that a spec or a file says counts as evidence,
only what the kernel says of this process and of every network that its wires lead to; what cannot be found out is a no.
"""

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"  # Debian keeps `ip` out of a user's PATH
PREFIX = "scrubber-demo-"
OURS = ("scrub0", "scrub1")  # devices of the enforcer, which drops what gets there


def space_name(maker: int, label: str) -> str:
    """The name of a network namespace that the process `maker` has made for its run."""
    return f"{PREFIX}{maker}-{label}"


@functools.cache
def unsealed() -> str:
    """Why packets of this process might get out into the world; empty: they cannot. Asked once a process."""
    maker = os.getppid()
    try:
        if _network("self") == _network(str(maker)):
            return "this process is in its parent's network"
        here = _ip("netns", "identify").strip()
        if not here.startswith(space_name(maker, "")):
            return "this process is in no network that its parent has made"
        return next(_ways_out(here, space_name(maker, "")), "")
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        return f"where its network leads cannot be found out: {error}"


def _network(process: str) -> int:
    return os.stat(f"/proc/{process}/ns/net").st_ino


def _ways_out(start: str, prefix: str) -> Iterator[str]:
    """Each interface that is up, there and wherever wires lead from there, and is not one of the run's own."""
    left, seen = [start], {start}
    while left:
        space = left.pop()
        names = {each["nsid"]: each.get("name", "") for each in _json("-n", space, "-json", "netns", "list-id")}
        for link in _json("-n", space, "-details", "-json", "link", "show"):
            if "UP" not in link["flags"]:
                continue
            peer = names.get(link.get("link_netnsid"), "")
            kind = link.get("linkinfo", {}).get("info_kind", "")
            if kind == "veth" and peer.startswith(prefix):
                if peer not in seen:
                    seen.add(peer)
                    left.append(peer)
            elif link["link_type"] != "loopback" and not (kind == "tun" and link["ifname"] in OURS):
                yield f"{link['ifname']} of {space} leads out of the networks of its run"


def _json(*words: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(_ip(*words) or "[]")
    return rows


def _ip(*words: str) -> str:
    program = shutil.which("ip", path=PATH)
    if program is None:
        raise FileNotFoundError("ip is not installed")
    return subprocess.run([program, *words], capture_output=True, text=True, check=True, timeout=10).stdout
