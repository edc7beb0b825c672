"""Whose processes they are, where root starts the gateway: names and numbers of [users], looked up.

Owns: that lookup, and what may be done as one of them before it is (by a child of ours). Invariants: never root, never
nobody, never a uid of somebody else's; supervisor and workers are not the same.
"""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path

from scrubber.config.gateway import Gateway
from scrubber.config.users import ENFORCER_UID, SUPERVISOR_UID, WORKER_UID, Users
from scrubber.errors import KernelError, OperatorError
from scrubber.server import privilege

User = tuple[int, int]  # uid, gid
DEFAULTS = {
    "supervisor": ("scrubber", SUPERVISOR_UID),
    "worker": ("scrubber-worker", WORKER_UID),
    "enforcer": ("scrubber-enforcer", ENFORCER_UID),
}
PROCESSES = {"supervisor": "supervisor", "worker": "workers", "enforcer": "enforcer"}
NOBODY = 65534
HINT = 'name users of their own: [users] supervisor = "…", worker = "…" (configs/scrubber.sysusers makes them all)'


def look_up(users: Users, *, enforcer: bool = False) -> dict[str, User]:
    """By role (`enforcer`: of that one, too); empty where we may not become somebody else: then all run as who we are.
    OperatorError."""
    if not privilege.may_change_user():
        return {}
    found = {"supervisor": _user("supervisor", users.supervisor), "worker": _user("worker", users.worker)}
    if enforcer:
        found["enforcer"] = _user("enforcer", users.enforcer)
    for one, other in combinations(found, 2):
        if found[one][0] == found[other][0]:
            raise OperatorError(f"{PROCESSES[one]} and {PROCESSES[other]} have the same user", hint=HINT)
    return found


def _user(role: str, wanted: str) -> User:
    default, uid = DEFAULTS[role]
    name = wanted or default
    if name.isdecimal():
        entry, uid = _entry(int(name)), int(name)
    else:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            if wanted:
                raise OperatorError(f"there is no user {name}", hint=HINT) from None
            entry = None
            if taken := _entry(uid):
                raise OperatorError(f"the uid {uid} for the {role} is {taken.pw_name}'s", hint=HINT) from None
    user = (entry.pw_uid, entry.pw_gid) if entry else (uid, uid)
    if user[0] in (0, NOBODY) or user[1] == 0:
        raise OperatorError(f"the {role} may not run as {name} (uid {user[0]}, gid {user[1]})", hint=HINT)
    return user


def _entry(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def ask_as(user: User | None, question: Callable[[], str]) -> str:
    """The answer that this user gets, in a child of ours; None: we are that user. KernelError: one cannot become it."""
    if user is None:
        return question()
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = {"failed": "it ended early"}
        try:
            privilege.become(*user)
            answer = {"said": question()}
        except OSError as error:
            answer = {"failed": str(error)}
        finally:
            os.write(theirs, json.dumps(answer).encode())
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as file:
        answer = json.loads(file.read() or b"{}")
    os.waitpid(pid, 0)
    if "said" in answer:
        return str(answer["said"])
    raise KernelError(f"cannot run as uid {user[0]}: {answer.get('failed', 'it ended early')}", hint=HINT)


def unread_notice(gateway: Gateway, users: Mapping[str, User]) -> str | None:
    """What to say where a reload, which is the supervisor's, cannot read what a start can."""
    user = users.get("supervisor")
    if user is None:
        return None
    files = [gateway.file, *gateway.mandates, *tls_files(gateway)]
    unread = ask_as(user, lambda: ", ".join(file for file in files if not _readable(file)))
    return f"a reload, as uid {user[0]}, will not be able to read {unread}" if unread else None


def tls_files(gateway: Gateway) -> list[str]:
    """Every file that the gateway file names for TLS."""
    home = Path(gateway.file).parent
    areas = [area.tls for area in gateway.areas if area.tls is not None]
    pools = [of for area in gateway.areas for of in (area.origins, *(pool.origins for pool in area.pools))]
    origins = [origin.tls for of in pools for origin in of if origin.tls is not None]
    pairs = [each for tls in areas for each in tls.certificates] + [
        tls.certificate for tls in origins if tls.certificate
    ]
    names = [name for each in pairs for name in (each.chain, each.key, each.ocsp)]
    names += [tls.authorities for tls in areas] + [tls.authorities for tls in origins]
    return sorted({str(home / name) for name in names if name})


def _readable(file: str) -> bool:
    try:
        os.close(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def described(users: Mapping[str, User]) -> str:
    """For the line that a start says."""
    if not users:
        return f"all processes run as uid {os.geteuid()}"
    each = ", ".join(f"{role} uid {uid}" for role, (uid, _) in users.items())
    return f"the keeper runs as root with little left of it, {each}"
