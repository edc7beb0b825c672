"""SipHash-c-d (Aumasson & Bernstein 2012), as the paper has it: rounds are parameters."""

WORD = 2**64 - 1


def _rotate(x: int, bits: int) -> int:
    return (x << bits | x >> (64 - bits)) & WORD


def _round(v: list[int]) -> None:
    v[0] = (v[0] + v[1]) & WORD
    v[1] = _rotate(v[1], 13) ^ v[0]
    v[0] = _rotate(v[0], 32)
    v[2] = (v[2] + v[3]) & WORD
    v[3] = _rotate(v[3], 16) ^ v[2]
    v[0] = (v[0] + v[3]) & WORD
    v[3] = _rotate(v[3], 21) ^ v[0]
    v[2] = (v[2] + v[1]) & WORD
    v[1] = _rotate(v[1], 17) ^ v[2]
    v[2] = _rotate(v[2], 32)


def siphash(k0: int, k1: int, data: bytes, *, compress: int, finish: int) -> int:
    """The 64-bit hash of data under the key (k0, k1)."""
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        v[3] ^= word
        for _ in range(compress):
            _round(v)
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(finish):
        _round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]
