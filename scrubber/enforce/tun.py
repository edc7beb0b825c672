"""A tun device that nobody reads: the far end of our routes, and what takes them along when we die.

Owns the device. Invariants: it is not persistent and its descriptor is not inherited, so that the kernel deletes it,
and with it every route on it, when this process ends in whatever way; it queues nothing, so that no packet sent to it
takes memory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from scrubber.enforce.backend import Unavailable
from scrubber.enforce.netlink import IFF_UP, RTM_DELROUTE, RTM_GETLINK, RTM_NEWLINK, Netlink, decoded

NAME_BYTES_MAX = 15
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI, _IFF_TUN_EXCL = 0x1, 0x1000, 0x8000
_RTN_MULTICAST, _TABLE_LOCAL = 5, 255
_ADDR_GEN_NONE = 1  # no IPv6 address of its own, hence no router solicitations into it


class Tun:
    """Up when made. `index` is the kernel's, and another after `mend` had to make it anew."""

    def __init__(self, name: str, netlink: Netlink) -> None:
        if not 1 <= len(name.encode()) <= NAME_BYTES_MAX:
            raise ValueError(f"{name!r} is no name of a device")
        self.name = name
        self._netlink = netlink
        self._file = -1
        self.index = 0
        try:
            self._file = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            self._make()
        except OSError as error:
            self.close()
            raise Unavailable(self._why(error)) from error

    def close(self) -> None:
        """Routes on it are gone when this returns."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def mend(self) -> None:
        """Somebody may have taken it down or away. OSError: that cannot be undone."""
        found = self._look(index=self.index)
        if found is None:
            self._make()
        elif not found["flags"] & IFF_UP:
            self._up()

    def _make(self) -> None:
        """The descriptor is of the namespace in which it was opened, and may be used again for a device taken away."""
        request = struct.pack("16sH22x", self.name.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_TUN_EXCL)
        fcntl.ioctl(self._file, _TUNSETIFF, request)
        found = self._look(name=self.name)
        if found is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        self.index = int(found["index"])
        self._set(attrs=[("IFLA_TXQLEN", 0)])
        family = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_NONE)]})]}
        with contextlib.suppress(OSError):  # a kernel without IPv6
            self._set(attrs=[("IFLA_AF_SPEC", family)])
        self._up()

    def _up(self) -> None:
        self._set(flags=IFF_UP, change=IFF_UP)
        route = rtmsg()
        route["family"], route["dst_len"], route["type"] = socket.AF_INET6, 8, _RTN_MULTICAST
        route["attrs"] = [("RTA_TABLE", _TABLE_LOCAL), ("RTA_DST", "ff00::"), ("RTA_OIF", self.index)]
        with contextlib.suppress(OSError):  # the kernel's, for multicast over every device: not over one that is mute
            self._netlink.ask(RTM_DELROUTE, route)

    def _set(self, **what: object) -> None:
        message = ifinfmsg()
        message["index"] = self.index
        for field, value in what.items():
            message[field] = value
        self._netlink.ask(RTM_NEWLINK, message)

    def _look(self, *, index: int = 0, name: str = "") -> ifinfmsg | None:
        message = ifinfmsg()
        message["index"] = index
        message["attrs"] = [("IFLA_IFNAME", name)] if name else []
        try:
            return decoded(ifinfmsg, self._netlink.ask(RTM_GETLINK, message)[0])
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def _why(self, error: OSError) -> str:
        match error.errno:
            case errno.EBUSY | errno.EINVAL:
                return f"there is a device {self.name} of somebody else's (or an enforcer still runs)"
            case errno.ENOENT | errno.ENODEV | errno.ENXIO:
                return "no /dev/net/tun: modprobe tun, or give the container that device"
            case errno.EPERM | errno.EACCES:
                return "a tun device takes CAP_NET_ADMIN and /dev/net/tun"
        return f"no tun device {self.name}: {error.strerror}"
