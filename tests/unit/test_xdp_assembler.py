"""The assembler of the XDP program, where the kernel has no say: jumps, byte order, labels.

What the instructions do is seen in tests/net/test_xdp.py.
"""

from __future__ import annotations

import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrubber.enforce.xdp_program import R1, R2, Assembler, D, Maps, program


@given(st.integers(0, 50), st.integers(0, 50))
def test_a_jump_counts_from_the_instruction_behind_it(before: int, after: int) -> None:
    a = Assembler()
    a.label("back")
    for _ in range(before):
        a.exit(0)
    a.goto("forth")
    a.goto("back")
    for _ in range(after):
        a.exit(0)
    a.label("forth")
    a.exit(1)
    offsets = [at for op, _, at, _ in struct.iter_unpack("=BBhi", a.assembled()) if op == 0x05]
    assert offsets == [1 + 2 * after, -2 * before - 2]


def test_a_label_that_is_nowhere_is_a_defect() -> None:
    a = Assembler()
    a.jump(R1, "==", 0, "nowhere")
    with pytest.raises(KeyError, match="nowhere"):
        a.assembled()


def test_registers_stand_in_this_machines_order() -> None:
    a = Assembler()
    a.load(D, R1, R2, -8)
    a.mov(R1, -1)
    registers = 0x21 if sys.byteorder == "little" else 0x12
    first, second = struct.iter_unpack("=BBhi", a.assembled())
    assert first == (0x79, registers, -8, 0)
    assert second == (0xB7, registers & 0x0F if sys.byteorder == "little" else 0x10, 0, -1)


def test_the_program_is_as_long_as_it_says() -> None:
    assert len(program(Maps(3, 4, 5, 6, 7, 8))) // 8 == pytest.approx(220, abs=5)
