"""Units: what is written is read back; what is not a value is refused with what was expected."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrubber.errors import OperatorError, ValueRefused
from scrubber.units import (
    DURATION_NS_MAX,
    SIZE_BYTES_MAX,
    Limit,
    format_bytes,
    format_bytes_per_s,
    format_duration,
    format_limit,
    format_share,
    parse_bytes,
    parse_bytes_per_s,
    parse_duration_ns,
    parse_limit,
    parse_share_ppm,
)

S = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("250ms", S // 4),
        ("10s", 10 * S),
        ("5m", 300 * S),
        ("5min", 300 * S),
        ("6h", 21600 * S),
        ("1d", 86400 * S),
        ("1h30m", 5400 * S),
        ("1.5s", 3 * S // 2),
        (" 2 s ", 2 * S),
        ("0s", 0),
        ("7us", 7000),
        ("3ns", 3),
    ],
)
def test_durations(text: str, ns: int) -> None:
    assert parse_duration_ns(text) == ns


@pytest.mark.parametrize(
    "text", ["", "10", "s", "10 parsecs", "-1s", "1e3s", "10s5", "0.5ns", "4000d", 10, 1.5, None, True, ["1s"]]
)
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueRefused) as refused:
        parse_duration_ns(text)
    assert '"10s"' in refused.value.expected
    assert isinstance(refused.value, OperatorError)


def test_a_number_without_unit_is_told_which_to_write() -> None:
    with pytest.raises(ValueRefused) as refused:
        parse_duration_ns("10")
    assert '"10s"' in refused.value.hint
    with pytest.raises(ValueRefused) as refused:
        parse_bytes("10")
    assert '"10B"' in refused.value.hint


@pytest.mark.parametrize(
    ("text", "count"),
    [("500B", 500), ("16KiB", 16384), ("64MiB", 2**26), ("10MB", 10**7), ("1.5kB", 1500), ("0B", 0), ("1 GiB", 2**30)],
)
def test_sizes(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "10", "10mb", "10 Mib", "0.3B", "2000TiB", "MiB", 64])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueRefused):
        parse_bytes(text)


@pytest.mark.parametrize(("text", "ppm"), [("2%", 20_000), ("0.5%", 5_000), ("100%", 10**6), ("0%", 0), ("0.0001%", 1)])
def test_shares(text: str, ppm: int) -> None:
    assert parse_share_ppm(text) == ppm
    assert parse_share_ppm(format_share(ppm)) == ppm


@pytest.mark.parametrize("text", ["2", "101%", "-1%", "0.00001%", "%", 0.02])
def test_what_is_no_share(text: object) -> None:
    with pytest.raises(ValueRefused):
        parse_share_ppm(text)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("5/min burst 10", Limit("requests", 5, 60 * S, 10)),
        ("50/s", Limit("requests", 50, S, 50)),
        ("50 requests/s burst 100 requests", Limit("requests", 50, S, 100)),
        ("1/2s", Limit("requests", 1, 2 * S, 1)),
        ("10MB/min", Limit("bytes", 10**7, 60 * S, 10**7)),
        ("1MiB/s burst 16MiB", Limit("bytes", 2**20, S, 2**24)),
        ("20 connections/s", Limit("connections", 20, S, 20)),
        ("1 connection/10s burst 3", Limit("connections", 1, 10 * S, 3)),
        ("8 concurrent", Limit("concurrent", 8, S, 8)),
        ("2 origin_s/min", Limit("origin_s", 2 * S, 60 * S, 2 * S)),
        ("0.5 origin_s/s burst 4", Limit("origin_s", S // 2, S, 4 * S)),
        ("250 origin_ms/s burst 1 origin_s", Limit("origin_s", S // 4, S, S)),
    ],
)
def test_limits(text: str, limit: Limit) -> None:
    assert parse_limit(text) == limit
    assert parse_limit(format_limit(limit)) == limit


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("50", "50/s"),
        ("0/s", "at least 1"),
        ("5/min burst 0", "at least 1"),
        ("0.5/s", "1/2s"),
        ("5/fortnight", "periods"),
        ("5/0s", "periods"),
        ("5 apples/s", "units"),
        ("0 concurrent", "1 upwards"),
        ("10MB/min burst 50", "50MB"),
    ],
)
def test_what_is_no_limit_comes_with_a_hint(text: str, word: str) -> None:
    with pytest.raises(ValueRefused) as refused:
        parse_limit(text)
    assert word in refused.value.hint
    assert "burst" in refused.value.expected


@pytest.mark.parametrize("text", ["", "/s", "s/5", "10MB/min burst 5 connections", "1/d burst 1000", "-5/s", "5//s", 5])
def test_what_is_no_limit(text: object) -> None:
    with pytest.raises(ValueRefused):
        parse_limit(text)


@pytest.mark.parametrize("text", ["5B", "5/s", "5B/min", "B/s", 500])
def test_what_is_no_byte_rate(text: object) -> None:
    with pytest.raises(ValueRefused):
        parse_bytes_per_s(text)


ROUND_TRIPS: list[tuple[Callable[[int], str], Callable[[object], int], int]] = [
    (format_duration, parse_duration_ns, DURATION_NS_MAX),
    (format_bytes, parse_bytes, SIZE_BYTES_MAX),
    (format_bytes_per_s, parse_bytes_per_s, SIZE_BYTES_MAX),
    (format_share, parse_share_ppm, 10**6),
]


@pytest.mark.parametrize(("show", "parse", "most"), ROUND_TRIPS)
@given(data=st.data())
def test_what_is_written_is_read_back(
    show: Callable[[int], str], parse: Callable[[object], int], most: int, data: st.DataObject
) -> None:
    factor = data.draw(st.sampled_from([1, 1000, 1024, 10**6, 10**9]))
    number = data.draw(st.integers(0, most // factor)) * factor
    assert parse(show(number)) == number


@given(
    st.sampled_from(["requests", "bytes", "connections", "origin_s"]),
    st.integers(1, 2**30),
    st.sampled_from([S, 10 * S, 60 * S, S // 1000]),
    st.integers(1, 2**30),
)
def test_limits_are_read_back(unit: str, count: int, period_ns: int, burst: int) -> None:
    limit = Limit(unit, count, period_ns, burst)  # type: ignore[arg-type]
    text = format_limit(limit)
    if burst * period_ns // count > 31 * 86400 * S:
        with pytest.raises(ValueRefused):
            parse_limit(text)
    else:
        assert parse_limit(text) == limit


VALUES = r"[0-9.]{1,4} ?[a-zA-Z_%]{0,6}(/[0-9a-z]{1,4})?( burst [0-9]{1,3})?"


@given(st.text(max_size=30) | st.from_regex(VALUES, fullmatch=True))
def test_any_text_is_a_value_or_refused(text: str) -> None:
    for parse in (parse_duration_ns, parse_bytes, parse_share_ppm, parse_bytes_per_s, parse_limit):
        try:
            value = parse(text)
        except ValueRefused as refused:
            assert refused.expected
        else:
            assert not isinstance(value, int) or value >= 0
