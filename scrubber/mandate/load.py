"""From files to a gateway and its mandates, with all that is wrong with them.

Owns reading mandates (their never-block lists by digest included) and the one way in which gateway and mandates are put
together. `now` is a parameter everywhere, so that validity can be tested and foreseen.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from scrubber.config.gateway import Gateway, read_gateway, read_toml
from scrubber.config.network import parse_prefix
from scrubber.config.walk import Report, read
from scrubber.errors import FilesRefused, Problem, ValueRefused, errors_of
from scrubber.mandate.check import check_mandate, check_together
from scrubber.mandate.schema import Mandate
from scrubber.mandate.serials import content_digest

LIST_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True)
class Loaded:
    """A gateway, its mandates, and the warnings that were found on the way."""

    gateway: Gateway
    mandates: tuple[Mandate, ...]
    problems: tuple[Problem, ...]


def load_mandate(path: str | Path, *, now: datetime.datetime | None = None) -> tuple[Mandate | None, list[Problem]]:
    """The mandate of a file, or None with at least one error among the problems. Checked alone, without a gateway."""
    report = Report(str(path))
    tree = read_toml(path, report)
    mandate = _read_mandate(tree, path, report, _now(now)) if tree is not None else None
    return (mandate if report.ok else None), report.problems


def load_all(path: str | Path, *, now: datetime.datetime | None = None) -> Loaded:
    """A gateway file and the mandates it names, checked together. FilesRefused carries every problem."""
    gateway, mandates, problems = _load_together(path, _now(now))
    if gateway is None or errors_of(problems):
        raise FilesRefused(problems)
    return Loaded(gateway, tuple(mandates), tuple(problems))


def check_files(paths: Sequence[str | Path], *, now: datetime.datetime | None = None) -> list[Problem]:
    """Every problem of gateway and mandate files, told apart by content; a gateway's mandates are checked with it."""
    at = _now(now)
    problems: list[Problem] = []
    done: set[Path] = set()
    later: list[tuple[str | Path, dict[str, Any], Report]] = []
    for path in paths:
        report = Report(str(path))
        tree = read_toml(path, report)
        if tree is None:
            problems += report.problems
        elif "mandate" in tree:
            later.append((path, tree, report))
        elif tree.keys() & {"listener", "area", "mandates"}:
            gateway, _, found = _load_together(path, at)
            problems += found
            done |= {Path(m).resolve() for m in gateway.mandates} if gateway else set()
        else:
            hint = "a gateway file has [[listener]] and [[area]], a mandate has [mandate]"
            report.error("", "is neither a gateway file nor a mandate", "one of the two", hint)
            problems += report.problems
    for path, tree, report in later:
        if Path(path).resolve() not in done:
            _read_mandate(tree, path, report, at)
            problems += report.problems
    return problems


def _now(now: datetime.datetime | None) -> datetime.datetime:
    return now or datetime.datetime.now(datetime.UTC)


def _load_together(path: str | Path, now: datetime.datetime) -> tuple[Gateway | None, list[Mandate], list[Problem]]:
    """Everything that could be read, sound or not: the problems say which."""
    report = Report(str(path))
    tree = read_toml(path, report)
    gateway = read_gateway(tree, path, report) if tree is not None else None
    named = gateway.mandates if gateway else ()
    found: list[tuple[Mandate, Report]] = []
    reports = [report]
    for i, name in enumerate(named):
        if report.spoiled(f"mandates[{i}]"):
            continue
        own = Report(_shown(name))
        reports.append(own)
        mandate_tree = read_toml(name, own)
        if mandate_tree is not None and "mandate" not in mandate_tree and "listener" in mandate_tree:
            report.unread(f"mandates[{i}]", f"{_shown(name)} is a gateway file", "a mandate")
        elif mandate_tree is None:
            report.holes.add(f"mandates[{i}]")  # what is wrong is said where it is
        else:
            found.append((_read_mandate(mandate_tree, name, own, now), own))
    if gateway is not None:
        check_together(gateway, report, found)
        if not named:
            hint = 'mandates = ["mandate.toml"]'
            report.warning("mandates", "no mandate: nothing may be done to anybody", "a mandate", hint)
    return gateway, [m for m, _ in found], [p for r in reports for p in r.problems]


def _shown(path: str) -> str:
    """As short as the working directory allows."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path


def _read_mandate(tree: dict[str, Any], path: str | Path, report: Report, now: datetime.datetime) -> Mandate:
    mandate = read(Mandate, tree, report)
    file = Path(path).absolute()
    listed: list[str] = list(mandate.proportion.never_block)
    for i, entry in enumerate(mandate.proportion.never_block_files):
        place = f"proportion.never_block_files[{i}]"
        if not report.spoiled(f"{place}.path"):
            listed += _read_list(file.parent / entry.path, entry.sha256, place, report)
    check_mandate(mandate, report, now)
    never_block = tuple(dict.fromkeys(listed))
    return msgspec.structs.replace(mandate, file=str(file), never_block=never_block, digest=content_digest(tree))


def _read_list(path: Path, sha256: str, place: str, report: Report) -> list[str]:
    """The prefixes of a never-block list whose digest is the mandate's."""
    try:
        data = path.read_bytes() if path.stat().st_size <= LIST_BYTES_MAX else None
    except OSError as e:
        report.error(f"{place}.path", f"{path} cannot be read: {e.strerror}", "a list of prefixes")
        return []
    if data is None:
        report.error(f"{place}.path", f"{path} is too large", f"at most {LIST_BYTES_MAX} bytes")
        return []
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256 and not report.spoiled(f"{place}.sha256"):
        hint = "the list was changed after the mandate was made: its authority has to take it on"
        report.error(f"{place}.sha256", f"{path.name} has the digest {digest}", sha256, hint)
        return []
    prefixes: list[str] = []
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            prefixes.append(parse_prefix(text))
        except ValueRefused as e:
            report.error(f"{place}.path", f"{path.name}, line {number}: {e.message}", e.expected, e.hint)
    return prefixes
