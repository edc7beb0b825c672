"""What ExaBGP is told at its start: with whom to speak BGP, and how to run under somebody's eyes.

Owns the settings, their bounds, and the files in the private directory. Invariant: nothing gets into a file that could
be read as more than the one value it is.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pwd
import stat
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

from scrubber.enforce.flow import FLOWS_MAX, Family
from scrubber.errors import KernelError, OperatorError, ValueRefused

AS_MAX = 2**32 - 1
SILENCE_S = 20  # after which the relay takes who commands for lost, and ends ExaBGP
RELAY = Path(__file__).with_name("exabgp_relay.py")


class Neighbour(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A router of the provider's that takes FlowSpec rules. We connect to it, to port 179."""

    address: str
    local_address: str
    peer_as: int
    password: str = ""  # TCP MD5 (RFC 2385); empty: none
    hold_s: int = 90


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ExaBGP. The directory is made, and ours alone; its path goes into a Unix socket's address."""

    directory: str
    local_as: int
    router_id: str
    neighbours: tuple[Neighbour, ...]
    families: tuple[Family, ...] = ("ipv4", "ipv6")
    flows_max: int = FLOWS_MAX


class Paths(NamedTuple):
    configuration: Path
    environment: Path
    socket: Path


def check(settings: Settings) -> None:
    """ValueRefused: the first that cannot be."""
    _bounds("local_as", settings.local_as, 1, AS_MAX)
    _bounds("flows_max", settings.flows_max, 1, 1000)
    if not settings.neighbours or not settings.families:
        raise ValueRefused("nobody to announce to, or nothing", expected="a neighbour and a family, at least")
    if _address(settings.router_id).version != 4:
        raise ValueRefused(f"the router id {settings.router_id!r} is none", expected="an IPv4 address")
    if len({one.address for one in settings.neighbours}) < len(settings.neighbours):
        raise ValueRefused("a neighbour is there twice", expected="each address once")
    for one in settings.neighbours:
        if _address(one.address).version != _address(one.local_address).version:
            raise ValueRefused(f"{one.address} and {one.local_address} are of two families", expected="both of one")
        _bounds("peer_as", one.peer_as, 1, AS_MAX)
        _bounds("hold_s", one.hold_s, 3, 65535)
        if len(one.password) > 80 or not _quotable(one.password):
            raise ValueRefused(
                "a BGP password cannot be used", expected='up to 80 printable ASCII characters but " and \\'
            )


def configuration(settings: Settings) -> str:
    """In ExaBGP's language. Every value is a number, an address written by us, or quoted."""
    socket = Path(settings.directory) / "api.sock"
    words = [sys.executable, "-I", "-S", str(RELAY), str(socket), str(SILENCE_S)]
    if not all(map(_quotable, words)):
        raise OperatorError(
            "ExaBGP cannot be told a path that has quotes, backslashes or letters beyond ASCII",
            hint="use another directory: " + " ".join(map(repr, words)),
        )
    run = " ".join(f'"{word}"' for word in words)
    process = f"process scrubber {{\n  run {run};\n  encoder text;\n}}\n"
    return process + "".join(_neighbour(settings, each, one) for each, one in enumerate(settings.neighbours))


def _neighbour(settings: Settings, number: int, one: Neighbour) -> str:
    # Unless told otherwise, ExaBGP takes a password that happens to be hexadecimal for base64.
    password = f'md5-password "{one.password}"; md5-base64 false;' if one.password else ""
    return f"""neighbor {_address(one.address)} {{
  local-address {_address(one.local_address)};
  router-id {_address(settings.router_id)};
  local-as {settings.local_as};
  peer-as {one.peer_as};
  hold-time {one.hold_s};
  adj-rib-out true;
  adj-rib-in false;
  {password}
  capability {{ graceful-restart disable; }}
  family {{ {" ".join(f"{family} flow;" for family in sorted(set(settings.families)))} }}
  api neighbour{number} {{ processes [ scrubber ]; }}
}}
"""


def environment() -> str:
    """ExaBGP's own settings. Its file has to be there, or it would read one in /etc. Started by root it would go on as
    "nobody", who may not read the directory: it keeps the user who starts it."""
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = "root"  # has to exist, and is asked for nothing
    return f"""[exabgp.daemon]
daemonize = false
user = '{user}'
[exabgp.api]
ack = true
cli = false
respawn = true
[exabgp.log]
destination = stdout
level = WARNING
short = true
[exabgp.tcp]
bind = ''
"""


def write_files(directory: str, configured: str, environ: str) -> Paths:
    """Into a directory that only this user may enter, made if there is none."""
    place = Path(directory).absolute()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise KernelError(f"{place} is not this user's alone", hint=f"chown and chmod 700 {place}, or name another")
    paths = Paths(place / "exabgp.conf", place / "exabgp.env", place / "api.sock")
    remove_files(paths)
    for path, text in ((paths.configuration, configured), (paths.environment, environ)):
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(text)
    return paths


def remove_files(paths: Paths) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        found = ipaddress.ip_address(text)
    except ValueError as error:
        raise ValueRefused(f"{text!r} is not an address", expected="an IPv4 or IPv6 address") from error
    if "%" in str(found):
        raise ValueRefused(f"{text!r} names an interface", expected="a global address: ExaBGP knows no others")
    return found


def _bounds(name: str, value: int, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ValueRefused(f"{name} is {value!r}", expected=f"{least} to {most}")


def _quotable(text: str) -> bool:
    return text.isascii() and text.isprintable() and not set('"\\') & set(text)
