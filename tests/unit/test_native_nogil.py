"""The hot path never asks for the interpreter: read from the C that Cython made of ext/.

After every call of a cdef function that is `nogil` but not `noexcept` comes a check for an exception, and that check
takes the GIL; so does a division that Cython guards, and whatever touches a Python object.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "__pyx_f_7_native_"
# `cdef` functions of the native core that say both words. The list of parameters may run over lines.
DECLARED = re.compile(
    r"^\s*cdef\s[^=#\n(]*?\b(\w+)\s*\(([^)]*)\)\s*(noexcept\s+nogil|nogil\s+noexcept)\s*:", re.MULTILINE
)
PYTHON = re.compile(
    r"PyGILState|__Pyx_WriteUnraisable|__Pyx_ErrOccurredWithGIL|__Pyx_AddTraceback|__Pyx_Raise\w*"
    r"|\bPyErr_\w+|\bPy_X?(?:INCREF|DECREF)\b|\bPyObject_\w+|PyEval_\w+|PyThreadState\w*"
)


def generated() -> str:
    found = sorted(ROOT.glob("build/cython-*/ext/_native.c"), key=lambda path: path.stat().st_mtime)
    assert found, "no generated C under build/: run make build"
    return found[-1].read_text()


def bodies(c_source: str) -> dict[str, str]:
    """C functions of cdef functions by name; a declaration has no body and is passed over."""
    found = {}
    for match in re.finditer(rf"^[^\n;#]*\b{PREFIX}(\w+)\([^;{{]*\)\s*\{{", c_source, re.MULTILINE):
        found[match.group(1)] = c_source[match.end() : c_source.index("\n}\n", match.end())]
    return found


def sources() -> list[Path]:
    return sorted((ROOT / "ext").glob("*.pyx"))


def test_no_hot_function_asks_for_the_interpreter() -> None:
    c_bodies = bodies(generated())
    names = {match.group(1) for path in sources() for match in DECLARED.finditer(path.read_text())}
    # A method's C name has its class before it: 6Engine_pass_begin.
    hot = {c_name: body for c_name, body in c_bodies.items() if re.sub(r"^\d+[A-Z][A-Za-z0-9]*_", "", c_name) in names}
    assert hot, "nothing to look at: has the module's name changed?"
    breaches = [f"{c_name}: {token}" for c_name, body in hot.items() for token in sorted(set(PYTHON.findall(body)))]
    assert not breaches, "\n".join(breaches)


def test_every_nogil_function_is_noexcept() -> None:
    breaches = []
    for path in [*sources(), *sorted((ROOT / "ext").glob("*.pxd"))]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            code = line.split("#")[0]
            if re.search(r"\)\s*nogil\b", code) and "noexcept" not in code:
                breaches.append(f"{path.name}:{number}: {line.strip()}")
    assert not breaches, "\n".join(breaches)


@pytest.mark.parametrize(
    ("body", "breach"),
    [
        ("  __pyx_gilstate = PyGILState_Ensure();", True),
        ('  __Pyx_WriteUnraisable("a.b", 0, 0, 0, 0, 1, 1);', True),
        ('  PyErr_SetString(PyExc_ZeroDivisionError, "integer division or modulo by zero");', True),
        ("  __pyx_v_x = (__pyx_v_a / __pyx_v_b);", False),
    ],
)
def test_the_check_sees_a_breach(body: str, breach: bool) -> None:
    c_source = f"static int {PREFIX}probe(int __pyx_v_a) {{\n{body}\n  return 0;\n}}\n"
    assert bool(PYTHON.search(bodies(c_source)["probe"])) is breach
