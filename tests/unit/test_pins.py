"""Every package has one version: what we ask for is pinned in pyproject.toml, what comes with it in constraints.txt."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.unit.files import ROOT

APART = {"pip", "setuptools", "scrubber"}  # pip freeze leaves them out: what builds, and what is built


def asked_for() -> dict[str, Requirement]:
    """By name: all of pyproject.toml, build tools included."""
    tree = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lists = [tree["build-system"]["requires"], tree["project"]["dependencies"]]
    lists += tree["project"]["optional-dependencies"].values()
    found: dict[str, Requirement] = {}
    for text in (text for each in lists for text in each):
        one = Requirement(text)
        name = canonicalize_name(one.name)
        assert found.setdefault(name, one).specifier == one.specifier, f"{name} is pinned in two ways"
        found[name] = one
    return found


def constrained() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [re.fullmatch(r"([A-Za-z0-9_.-]+)==([^\s;@]+)", line) for line in lines if not line.startswith("#")]
    assert all(pairs), "each line is NAME==VERSION"
    return {canonicalize_name(pair[1]): pair[2] for pair in pairs if pair}


def test_what_we_ask_for_is_pinned_and_the_same_in_both() -> None:
    constraints = constrained()
    for name, one in asked_for().items():
        (pin,) = one.specifier
        assert pin.operator == "==", name
        if name not in APART:
            assert constraints.get(name) == pin.version, f"{name}: run make constraints"


def test_what_it_brings_along_is_pinned() -> None:
    """As the packages of this environment say themselves."""
    constraints = constrained()
    seen: set[str] = set()
    todo = [(name, one.extras) for name, one in asked_for().items()]
    while todo:
        name, extras = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        assert name in constraints or name in APART, f"{name} floats: run make constraints"
        for text in importlib.metadata.requires(name) or []:
            one = Requirement(text)
            wanted = one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras))
            if wanted:
                todo.append((canonicalize_name(one.name), one.extras))
    assert len(seen) > len(asked_for())
    assert constraints.keys() <= seen, "a package that nobody needs any more: run make constraints"
