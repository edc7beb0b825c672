"""Imports inside scrubber/ go downward only, and a few outside packages appear only where their work is.

Read from the source, not by importing: an import inside a function, or for types only, counts as well.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.support import environment

ROOT = Path(__file__).resolve().parents[2]

# A package may import those of a higher number and itself; neighbours on one level do not know each other.
LEVELS = {
    "cli": 0,
    "server": 1,
    "admin": 2,
    "control": 3,
    "mandate": 4,
    "detect": 4,
    "enforce": 4,
    "ledger": 4,
    "fleet": 4,
    "config": 5,
    "units": 6,
    "errors": 7,
}
# Outside packages with one place: module prefixes below scrubber that may import them.
PLACES = {
    "aiohttp": ("admin",),
    "pyroute2": ("enforce",),
    "nftables": ("enforce",),
    "scrubber._native": ("server", "control", "mandate.compile", "config.patterns"),  # patterns: what RE2 takes
}


def imports_of(source: str, module: str, is_package: bool) -> list[str]:
    """Absolute dotted names that the source of `module` imports."""
    names: list[str] = []
    here = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{start}.{alias.name}" for alias in node.names]
    return names


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    parts = module.split(".")
    own = parts[1] if len(parts) > 1 else ""
    below_root = ".".join(parts[1:])
    found = []
    for name in imports_of(source, module, is_package):
        for package, places in PLACES.items():
            inside = (name + ".").startswith(package + ".")
            if inside and not any((below_root + ".").startswith(place + ".") for place in places):
                found.append(f"{module} imports {name}: only {', '.join(places)} may")
        target = name.split(".")
        if target[0] != "scrubber" or len(target) < 2 or target[1].startswith("_"):
            continue
        other = target[1]
        if other in LEVELS and own in LEVELS and other != own and LEVELS[other] <= LEVELS[own]:
            found.append(f"{module} imports {name}: {other} is not below {own}")
    return found


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted((ROOT / "scrubber").rglob("*.py")):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found.append((".".join(parts), path))
    return found


def test_imports_go_downward() -> None:
    found = []
    for module, path in modules():
        found += violations(path.read_text(), module, path.name == "__init__.py")
    assert not found, "\n".join(found)


def test_every_package_has_a_level() -> None:
    tops = {module.split(".")[1] for module, _ in modules() if "." in module}
    unknown = {name for name in tops if not name.startswith("_")} - LEVELS.keys()
    assert not unknown, f"give {unknown} a level in {__file__}"


def test_the_keeper_carries_no_parser_and_no_web_server() -> None:
    """Here it is what is imported in the end that counts, through whatever."""
    code = "import sys, scrubber.server.keeper; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=environment()
    )
    loaded = set(done.stdout.split())
    assert "scrubber.server.keeper" in loaded
    assert not loaded & {"uvloop", "asyncio", "aiohttp", "msgspec", "tomllib", "click", "rich", "scrubber._native"}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("scrubber.config.load", "from scrubber.mandate import schema"),
        ("scrubber.config.load", "from ..mandate import schema"),
        ("scrubber.admin.api", "import scrubber.server.keeper"),
        ("scrubber.mandate.compile", "from scrubber.ledger import write"),
        ("scrubber.control.acts", "def later():\n    from scrubber.cli import main"),
        ("scrubber.server.worker", "import aiohttp"),
        ("scrubber.server.worker", "from aiohttp import web"),
        ("scrubber.mandate.schema", "from scrubber import _native"),
        ("scrubber.cli.run", "import pyroute2.netlink"),
    ],
)
def test_the_check_sees_a_breach(module: str, source: str) -> None:
    assert violations(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("scrubber.cli.run", "from scrubber.server import keeper"),
        ("scrubber.mandate.compile", "from scrubber import _native"),
        ("scrubber.mandate.compile", "from . import schema"),
        ("scrubber.admin.client", "import aiohttp"),
        ("scrubber.config.load", "from scrubber.units import duration_ns"),
    ],
)
def test_the_check_lets_good_ones_pass(module: str, source: str) -> None:
    assert not violations(source, module)
