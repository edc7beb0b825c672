"""The files that TLS examples in configs/ name: made beside a copy of these, for nobody has them in the tree."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

from scrubber.cli.dev_cert import self_signed
from tests.e2e.certificates import authority, signed, staple
from tests.unit.files import ROOT

HOSTS = ("example.org", "www.example.org", "api.example.org")


@functools.cache
def examples() -> Path:
    """A copy of configs/ with every file that an example names; it goes with the process."""
    made = tempfile.TemporaryDirectory(prefix="scrubber-configs-")
    examples.kept = made  # type: ignore[attr-defined]
    home = Path(made.name)
    shutil.copytree(ROOT / "configs", home, dirs_exist_ok=True)
    chain, key = self_signed(("localhost",))
    (home / "dev.pem").write_bytes(chain)
    (home / "dev.key").write_bytes(key)
    tls = home / "tls"
    tls.mkdir()
    signed("gateway").write(tls, "gateway")
    signed(*HOSTS).write(tls, "example-ecdsa")
    signed(*HOSTS, kind="rsa").write(tls, "example-rsa")
    (tls / "example-ecdsa.ocsp").write_bytes(staple(signed(*HOSTS)))
    for name in ("internal-ca", "partners-ca"):
        (tls / f"{name}.pem").write_bytes(authority().pem)
    return home
