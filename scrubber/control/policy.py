"""The policy in force: what it was made of, and what a reload may change.

Owns: the step from files to images, and which settings belong to a gateway's whole life. Invariant: a policy is whole
or is not made; the one in force is never touched.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scrubber.config.gateway import Gateway
from scrubber.errors import FilesRefused, Problem
from scrubber.mandate.compile import CompiledPolicy, compile_policy, next_expiry, restore
from scrubber.mandate.load import load_all
from scrubber.mandate.resolved import Answers, resolved
from scrubber.mandate.schema import Mandate
from scrubber.mandate.serials import Accepted, accepted_with, rolled_back
from scrubber.mandate.slots import Slots, assign_area_ids, assign_slots

LookUp = Callable[[Gateway, Mapping[str, tuple[str, ...]]], tuple[dict[str, tuple[str, ...]], dict[str, str]]]
UPGRADE_HINT = "scrubber upgrade takes it over without a failed request; until then undo it to reload the rest"
RESTART_HINT = "stop the gateway and start it again; until then undo this change to reload the others"
_HINTS = dict.fromkeys(("state_dir", "admin.socket"), RESTART_HINT)


@dataclass(frozen=True)
class PolicyInForce:
    """Gateway file and mandates as they are obeyed now."""

    gateway: Gateway
    mandates: tuple[Mandate, ...]
    area_ids: dict[str, int]
    generation: int
    slots: Slots
    answers: dict[str, tuple[str, ...]]  # addresses of the names that stand for origins
    accepted: tuple[Accepted, ...]  # the last version of each mandate that was ever in force
    rules: tuple[str, ...] = ()  # "mandate/rule" by index; empty where only the image was at hand

    @functools.cached_property
    def resolved(self) -> Gateway:
        """The gateway with addresses in place of names."""
        return resolved(self.gateway, self.answers)

    def next_expiry(self, now: datetime.datetime) -> datetime.datetime | None:
        """When the next mandate ends; None: none that is valid now."""
        return next_expiry(self.mandates, now)

    def area_names(self) -> dict[int, str]:
        """Areas of the gateway file by their index."""
        return {self.area_ids[area.name]: area.name for area in self.gateway.areas}


def compile_again(old: PolicyInForce) -> tuple[PolicyInForce, CompiledPolicy]:
    """The same files as they are to be read now (a mandate expired, the clock was set), as the next generation."""
    return compile_answers(old, old.answers)


def compile_answers(
    old: PolicyInForce, answers: dict[str, tuple[str, ...]]
) -> tuple[PolicyInForce, CompiledPolicy]:
    """The same files, with other addresses for names of origins."""
    return compile_files(
        old.gateway,
        old.mandates,
        old.area_ids,
        old.generation + 1,
        slots=old.slots,
        answers=answers,
        accepted=old.accepted,
    )


def compile_files(
    gateway: Gateway,
    mandates: tuple[Mandate, ...],
    area_ids: Mapping[str, int],
    generation: int,
    *,
    slots: Slots | None = None,
    answers: Answers | None = None,
    accepted: tuple[Accepted, ...] = (),
) -> tuple[PolicyInForce, CompiledPolicy]:
    """Images of checked files. OperatorError: more areas, pools or origins than there may be."""
    ids = assign_area_ids(gateway, area_ids)
    known = dict(answers or {})
    places = assign_slots(resolved(gateway, known), slots)
    versions = accepted_with(accepted, mandates)
    compiled = compile_policy(
        gateway, mandates, generation=generation, area_ids=ids, slots=places, answers=known, accepted=versions
    )
    return PolicyInForce(gateway, mandates, ids, generation, places, known, versions, tuple(compiled.rules)), compiled


def from_image(image: bytes) -> PolicyInForce:
    """What an image was made of. PolicyRefused."""
    found = restore(image)
    return PolicyInForce(
        found.gateway, found.mandates, found.area_ids, found.generation, found.slots, found.answers, found.accepted
    )


def read_again(
    old: PolicyInForce, connections_max: int, look_up: LookUp | None = None
) -> tuple[PolicyInForce, CompiledPolicy, list[Problem]]:
    """The files as they are now, and their warnings; the workers were made for `connections_max`.

    `look_up` resolves names of origins that are new. FilesRefused: with all that speaks against them.
    """
    loaded = load_all(old.gateway.file)
    reasons = restart_reasons(old.gateway, loaded.gateway, connections_max)
    reasons += rolled_back(old.accepted, loaded.mandates)
    if reasons:
        raise FilesRefused([*reasons, *loaded.problems])
    answers, failed = look_up(loaded.gateway, old.answers) if look_up else (old.answers, {})
    problems = [*loaded.problems, *unresolved(loaded.gateway, failed)]
    policy, compiled = compile_files(
        loaded.gateway,
        loaded.mandates,
        old.area_ids,
        old.generation + 1,
        slots=old.slots,
        answers=answers,
        accepted=old.accepted,
    )
    return policy, compiled, problems


def unresolved(gateway: Gateway, failed: Mapping[str, str]) -> list[Problem]:
    """A warning for each name that stands for nothing yet."""
    hint = "it is asked for again and again; until it resolves there is no such origin"
    said = {f"{name} does not resolve: {why}": name for name, why in failed.items()}
    return [Problem(gateway.file, "area.origins", text, "a name that DNS knows", hint, "warning") for text in said]


def restart_reasons(old: Gateway, new: Gateway, connections_max: int) -> list[Problem]:
    """Each setting that differs and was fixed when the gateway started. (Fewer connections than there may be are no
    matter: they were allocated, and are not used.)"""
    more = new.limits.connections_max > connections_max
    pairs = {
        "workers": (old.workers, new.workers),
        "state_dir": (old.state_dir, new.state_dir),
        "memory": (old.memory, new.memory),
        "admin.socket": (old.admin.socket, new.admin.socket),
        "enforcer": (old.enforcer, new.enforcer),
        "limits.connections_max": (connections_max, new.limits.connections_max if more else connections_max),
    }
    return [
        Problem(new.file, path, "cannot change by a reload", _shown(before), _HINTS.get(path, UPGRADE_HINT))
        for path, (before, after) in pairs.items()
        if before != after
    ]


def _shown(value: object) -> str:
    return f"what it started with: {value}" if isinstance(value, (int, str)) else "what it started with"
