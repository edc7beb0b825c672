"""Other people's programs and packages that tests need.

Where one is missing its tests are skipped; in continuous integration (CI=true) they fail: nobody reads what is skipped
there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib import import_module
from types import ModuleType
from typing import NoReturn

import pytest

# Debian keeps some of them out of a user's PATH.
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
PACKAGES = {"ab": "apache2-utils", "h2load": "nghttp2-client", "nghttp": "nghttp2-client",
            "node": "nodejs", "rsyslogd": "rsyslog", "unshare": "util-linux", "setpriv": "util-linux",
            "ip": "iproute2", "nft": "nftables", "bird": "bird2", "birdc": "bird2"}  # fmt: skip


def lacking(what: str, hint: str) -> NoReturn:
    """`what` is not here: no test without it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is not installed, and CI=true skips nothing: {hint}", pytrace=False)
    pytest.skip(f"{what} is not installed: {hint}", allow_module_level=True)


def program(*names: str) -> str:
    """The path of the first of these names that is there."""
    for name in names:
        if found := shutil.which(name, path=PATH):
            return found
    lacking(names[0], f"apt-get install {PACKAGES.get(names[0], names[0])}")


def own_mounts() -> list[str]:
    """Words before a program that give it, and its children, mounts of their own."""
    unshare = program("unshare")
    if subprocess.run([unshare, "-m", "true"], capture_output=True, check=False).returncode:
        lacking("a mount namespace", "run as root")
    return [unshare, "-m"]


def package(name: str) -> ModuleType:
    """A module of a Python package."""
    try:
        return import_module(name)
    except ImportError:
        lacking(name, "make build")
