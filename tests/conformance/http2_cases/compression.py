"""Group "hpack": blocks that RFC 7541 has a decoder refuse. In HTTP/2 that ends the connection."""

from __future__ import annotations

import hpack.hpack
import hpack.huffman_constants
from h2.errors import ErrorCodes
from hyperframe.frame import SettingsFrame

from tests.conformance.http2_cases.generic import HUFFMAN, string
from tests.conformance.http2_cases.registry import case
from tests.conformance.http2_peer import Peer, headers


def undecodable(id: str, title: str, behind: bytes) -> None:
    """A request whose block ends with what cannot be decoded."""

    @case(id, title)
    async def steps(peer: Peer) -> None:
        await peer.send(headers(1, peer.block(peer.fields()) + behind))
        await peer.connection_error(ErrorCodes.COMPRESSION_ERROR)


# 61 entries are static, and a request adds one or two.
undecodable("hpack/2.3.3/1", "an indexed field beyond both tables", b"\xc6")
undecodable("hpack/2.3.3/2", "a literal whose name is indexed beyond both tables", b"\x7f\x07\x00")
undecodable("hpack/4.2/1", "an update of the table's size at the end of a block", b"\x21")


def x_test(coded: bytes) -> bytes:
    """A literal "x-test" with this Huffman-coded value."""
    return b"\x00" + string(b"x-test", huffman=True) + bytes([0x80 | len(coded)]) + coded


TEST = HUFFMAN.encode(b"test")  # 20 bits, and 4 of padding


def with_eos() -> bytes:
    """ "test" behind the end-of-string symbol, thirty ones."""
    bits = "1" * 30
    for octet in b"test":
        length = hpack.huffman_constants.REQUEST_CODES_LENGTH[octet]
        bits += f"{hpack.huffman_constants.REQUEST_CODES[octet]:0{length}b}"
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


undecodable("hpack/5.2/1", "a Huffman-coded string with padding of more than 7 bits", x_test(TEST + b"\xff"))
undecodable("hpack/5.2/2", "a Huffman-coded string padded with zeros", x_test(TEST[:-1] + bytes([TEST[-1] & 0xF0])))
undecodable("hpack/5.2/3", "a Huffman-coded string with the end-of-string symbol in it", x_test(with_eos()))
undecodable("hpack/6.1/1", "an indexed field with index 0", b"\x80")


@case("hpack/6.3/1", "an update to a table larger than the server allows")
async def table_too_large(peer: Peer) -> None:
    allowed = peer.settings.get(SettingsFrame.HEADER_TABLE_SIZE, 4096)
    update = hpack.hpack.encode_integer(allowed + 1, 5)
    update[0] |= 0x20
    await peer.send(headers(1, bytes(update) + peer.block(peer.fields())))
    await peer.connection_error(ErrorCodes.COMPRESSION_ERROR)
