"""The file of blocks: what is sound comes back, what is not is noticed and lost alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrubber.control.saved import SavedBlock
from scrubber.server.block_file import NAME, BlockFile, Lifted, Record, parse, read

KEY = bytes(range(32))


def block(number: int, *, areas: tuple[str, ...] = ("site",), until_ns: int = 10) -> SavedBlock:
    source = f"192.0.2.{number}"
    return SavedBlock("client", source, areas, "00" * 8, f"{number:016x}", 1, 1, until_ns, 5, "m/r", "CERT", "m")


def written(directory: Path, records: list[Record]) -> bytes:
    file = BlockFile(str(directory), KEY)
    file.rewrite([])
    file.append(records)
    file.close()
    return (directory / NAME).read_bytes()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    changed, lifted = block(2, until_ns=20), Lifted("client", "192.0.2.9")
    records = [block(1), block(2), block(1, areas=("site", "other")), changed, lifted]
    data = written(tmp_path, records)
    assert os.stat(tmp_path / NAME).st_mode & 0o777 == 0o600
    found = read(str(tmp_path), KEY)
    assert found == parse(data, KEY)
    assert found.damage() == ""
    assert sorted(found.blocks, key=repr) == sorted([records[0], records[2], records[3]], key=repr)


def test_lifted_blocks_stay_lifted_until_they_are_made_again(tmp_path: Path) -> None:
    lift = Lifted("client", "192.0.2.1")
    written(tmp_path, [block(1), block(1, areas=("other",)), block(2), lift])
    assert read(str(tmp_path), KEY).blocks == [block(2)]
    written(tmp_path, [block(1), lift, block(1, until_ns=30)])
    assert read(str(tmp_path), KEY).blocks == [block(1, until_ns=30)]


def test_a_file_written_anew_has_nothing_of_the_old_one(tmp_path: Path) -> None:
    old = written(tmp_path, [block(1), block(2)])
    file = BlockFile(str(tmp_path), KEY)
    file.rewrite([[block(3)], [block(4)]])
    file.append([block(5)])
    file.close()
    assert file.lines == 4
    assert read(str(tmp_path), KEY).blocks == [block(3), block(4), block(5)]
    assert sorted(os.listdir(tmp_path)) == [NAME]
    mixed = (tmp_path / NAME).read_bytes() + old.splitlines(keepends=True)[1]
    found = parse(mixed, KEY)
    assert (found.blocks, found.unsound) == ([block(3), block(4), block(5)], 1)


def test_the_last_line_torn_at_every_byte(tmp_path: Path) -> None:
    data = written(tmp_path, [block(1), block(2)])
    last = data.rindex(b"\n", 0, -1) + 1
    for end in range(last + 1, len(data) - 1):
        found = parse(data[:end], KEY)
        assert found.blocks == [block(1)]
        assert found.unsound == 1
        assert found.damage()
    assert parse(data[:-1], KEY).blocks == [block(1), block(2)], "the line is whole, its end alone is missing"
    assert parse(data[:last], KEY).blocks == [block(1)]


def test_a_byte_altered_anywhere(tmp_path: Path) -> None:
    """One line is lost, and it is noticed; a line's end that is gone takes its neighbour along."""
    data = written(tmp_path, [block(number) for number in range(1, 5)])
    for at in range(len(data)):
        for flip in (0x01, 0x80):
            altered = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
            found = parse(altered, KEY)
            assert found.damage(), at
            lost = 2 if data[at] == 0x0A else 1
            assert len(found.blocks) >= 4 - lost
            assert all(each in [block(number) for number in range(1, 5)] for each in found.blocks)


def test_lines_removed_swapped_and_doubled(tmp_path: Path) -> None:
    data = written(tmp_path, [block(number) for number in range(1, 5)])
    lines = data.splitlines(keepends=True)
    removed = parse(b"".join(lines[:2] + lines[3:]), KEY)
    assert (removed.blocks, removed.missing) == ([block(1), block(3), block(4)], 1)
    swapped = parse(b"".join([lines[0], lines[2], lines[1], *lines[3:]]), KEY)
    assert swapped.blocks == [block(number) for number in range(1, 5)]
    assert swapped.misplaced == 1
    doubled = parse(data + lines[1], KEY)
    assert (len(doubled.blocks), doubled.unsound) == (4, 1)
    headless = parse(b"".join(lines[1:]), KEY)
    assert (len(headless.blocks), headless.missing) == (4, 1)


def test_an_order_that_was_changed_does_not_bring_a_lifted_block_back(tmp_path: Path) -> None:
    lines = written(tmp_path, [block(1), Lifted("client", "192.0.2.1")]).splitlines(keepends=True)
    assert parse(b"".join([lines[0], lines[2], lines[1]]), KEY).blocks == []


def test_another_key_nothing_and_no_directory(tmp_path: Path) -> None:
    data = written(tmp_path, [block(1)])
    other = parse(data, KEY[::-1])
    assert (other.blocks, other.unsound) == ([], 2)
    assert parse(b"", KEY).damage(), "a file that was emptied is noticed"
    nothing = read(str(tmp_path / "nowhere"), KEY)
    assert (nothing.blocks, nothing.damage()) == ([], "")
    (tmp_path / "as" / NAME).mkdir(parents=True)
    assert "cannot be read" in read(str(tmp_path / "as"), KEY).damage()


def test_a_disk_that_does_not_take_it_leaves_the_old_file(tmp_path: Path) -> None:
    data = written(tmp_path, [block(1)])

    def ends() -> list[list[SavedBlock]]:
        raise OSError(28, "No space left on device")
        yield

    with pytest.raises(OSError, match="No space"):
        BlockFile(str(tmp_path), KEY).rewrite(ends())
    assert (tmp_path / NAME).read_bytes() == data
    assert os.listdir(tmp_path) == [NAME]


SOURCES = st.sampled_from([("client", f"198.51.100.{n}") for n in range(4)] + [("prefix", "2001:db8::/48")])
BLOCKS = st.builds(
    lambda source, areas, times: SavedBlock(*source, tuple(areas), "0" * 16, "0" * 16, *times),
    SOURCES,
    st.lists(st.text(max_size=5), max_size=3),
    st.tuples(*[st.integers(-(2**62), 2**62)] * 4),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(BLOCKS, st.builds(lambda source: Lifted(*source), SOURCES)), max_size=20))
def test_any_history_reads_as_what_it_left(tmp_path_factory: pytest.TempPathFactory, records: list[Record]) -> None:
    left: dict[tuple[str, str, tuple[str, ...]], SavedBlock] = {}
    for record in records:
        if isinstance(record, SavedBlock):
            left[record.kind, record.source, record.areas] = record
        elif isinstance(record, Lifted):
            left = {key: each for key, each in left.items() if key[:2] != (record.kind, record.source)}
    found = parse(written(tmp_path_factory.mktemp("history"), records), KEY)
    assert found.damage() == ""
    assert {(each.kind, each.source, each.areas): each for each in found.blocks} == left
