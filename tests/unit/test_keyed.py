"""SipHash-1-3 against the paper's reference, published vectors and CPython's own."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrubber import _native
from tests.reference.siphash import siphash

K0, K1 = 0x0706050403020100, 0x0F0E0D0C0B0A0908
WORDS = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(0, 0x726FDB47DD0E0E31), (1, 0x74F839C593DC67FD), (8, 0x93F5F5799A932462), (15, 0xA129CA6149BE45E5)],
)
def test_reference_gives_published_siphash_2_4(length: int, expected: int) -> None:
    assert siphash(K0, K1, bytes(range(length)), compress=2, finish=4) == expected


@given(WORDS, WORDS, st.binary(max_size=300))
def test_native_is_siphash_1_3(k0: int, k1: int, data: bytes) -> None:
    assert _native.probe_siphash(k0, k1, data) == siphash(k0, k1, data, compress=1, finish=3)


@given(WORDS, WORDS, WORDS, WORDS)
def test_pair_is_the_hash_of_its_sixteen_bytes(k0: int, k1: int, a: int, b: int) -> None:
    data = a.to_bytes(8, "little") + b.to_bytes(8, "little")
    assert _native.probe_siphash_pair(k0, k1, a, b) == siphash(k0, k1, data, compress=1, finish=3)


@pytest.mark.skipif(sys.hash_info.algorithm != "siphash13", reason="this CPython hashes bytes with another function")
def test_agrees_with_cpython() -> None:
    # PYTHONHASHSEED=0 makes CPython's key all zero.
    texts = [bytes(range(n)) for n in range(1, 40)]
    code = f"print([hash(t) % 2**64 for t in {texts!r}])"
    env = {**os.environ, "PYTHONHASHSEED": "0"}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert out.strip() == str([_native.probe_siphash(0, 0, t) for t in texts])


def test_order_of_a_pair_matters() -> None:
    assert _native.probe_siphash_pair(1, 2, 3, 4) != _native.probe_siphash_pair(1, 2, 4, 3)
