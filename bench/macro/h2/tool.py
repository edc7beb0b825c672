"""h2load (Debian's nghttp2-client) as a load of the bench: its command line, and what it says read into an Outcome.

Invariants: it connects to 127.0.0.1 alone and names no host that would be resolved; it is bounded in seconds or in
requests, and ended where it takes longer than any load may; what was not agreed on as h2 with the cipher of all TLS
scenarios is a BenchError.
"""

from __future__ import annotations

import re
import resource
import subprocess
from collections.abc import Sequence

from bench.load.guard import SECONDS_CEILING, Bounds, loopback
from bench.macro.load import BROWSER, Ask, Outcome
from bench.macro.systems import BenchError, program

CIPHER = "TLS_AES_128_GCM_SHA256"
RATE_MAX = 200_000  # a second; no proxy answers as many on one core
UNITS_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def argv_of(port: int, what: Ask, bounds: Bounds) -> list[str]:
    """h2load takes one bound: the seconds where the requests would not be reached in them, else the requests."""
    timed = bounds.requests_max >= bounds.seconds_max * RATE_MAX
    count = min(bounds.requests_max, round(bounds.seconds_max * RATE_MAX))
    bound = f"--duration={bounds.seconds_max:g}s" if timed else f"--requests={count}"
    fields = [f"--header={name.lower()}: {value}" for name, value in BROWSER.items() if name != "Host"]
    return [
        program("h2load", "nghttp2-client"),
        bound,
        f"--clients={what.connections}",
        f"--max-concurrent-streams={what.streams}",
        "--threads=1",
        f"--connect-to={loopback('127.0.0.1')}:{port}",
        "--npn-list=h2,http/1.1",  # ALPN; the second so that it can say what was chosen instead
        f"--tls13-ciphers={CIPHER}",
        "--groups=X25519",
        *fields,
        f"https://{BROWSER['Host']}:{port}/page?id=7",
    ]


def h2load(port: int, what: Ask, bounds: Bounds, core: int) -> Outcome:
    """Run it to its end, on that core. Its own CPU is that of our children that ended meanwhile."""
    argv = ["taskset", "-c", str(core), *argv_of(port, what, bounds)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS_CEILING, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"h2load did not end within {SECONDS_CEILING:g} s") from None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise BenchError(f"h2load ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-500:]}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return parsed(done.stdout, cpu_s)


def parsed(said: str, cpu_s: float) -> Outcome:
    """What h2load printed. BenchError: no h2, or counts that do not agree with each other."""
    agreed = one(r"^Application protocol: (.*)$", said, "none")
    if agreed != "h2":
        raise BenchError(f"no h2: the protocol was {agreed}")
    cipher = one(r"^Cipher: (.*)$", said, "none")
    if cipher != CIPHER:
        raise BenchError(f"the cipher was {cipher}, not {CIPHER}")
    seconds = re.search(r"^finished in ([\d.]+)(s|ms|us),", said, re.MULTILINE)
    total, done, succeeded, failed = numbers(r"^requests: ", ("total", "done", "succeeded", "failed"), said)
    kinds = numbers(r"^status codes: ", ("2xx", "3xx", "4xx", "5xx"), said)
    good, refused = sum(kinds[:2]), sum(kinds[2:])
    if seconds is None or succeeded != good or done != succeeded + failed or good + refused > done:
        raise BenchError(f"h2load's counts do not agree: {said[-500:]}")
    # What never began, or had no answer, is an error; "failed" are answers of 4xx and 5xx as well.
    return Outcome(
        requests=total,
        seconds=float(seconds[1]) * UNITS_S[seconds[2]],
        good=good,
        refused=refused,
        cut=0,
        errors=total - good - refused,
        cpu_s=cpu_s,
    )


def one(pattern: str, said: str, otherwise: str) -> str:
    found = re.search(pattern, said, re.MULTILINE)
    return found[1].strip() if found else otherwise


def numbers(line: str, words: Sequence[str], said: str) -> list[int]:
    """The numbers before these words, in a line that begins so."""
    text = one(line + "(.*)$", said, "")
    found = [re.search(rf"(\d+) {word}", text) for word in words]
    if not all(found):
        raise BenchError(f"h2load did not say what it counted: {said[-500:]}")
    return [int(each[1]) for each in found if each]
