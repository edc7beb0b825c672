"""What RFC 9111 lets a shared cache keep and give: the core beside the slow reference, and each clause by name."""

from __future__ import annotations

import email.utils
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrubber import _native
from tests.reference import cache as reference
from tests.reference.cache import Spec

W = _native.probe_cache_words()
STORE = {number: name for name, number in W.items() if name.startswith("STORE_")}
S = 10**9
NOW = 1_795_000_000  # some second of 2026
PLAIN = Spec()
HONOUR = W["CACHE_HONOUR_NO_CACHE"]
AGES = {W["AGE_FRESH"]: "fresh", W["AGE_STALE_ALLOWED"]: "allowed", W["AGE_STALE"]: "stale", W["AGE_NEVER"]: "never"}


def http_date(at_s: float) -> str:
    return email.utils.formatdate(at_s, usegmt=True)


def response(*fields: str, status: int = 200, framing: str = "Content-Length: 5") -> bytes:
    lines = [f"HTTP/1.1 {status} x", *fields, *([framing] if framing else [])]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def request(*fields: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} /x HTTP/1.1", "Host: site.test", *fields, "", ""]).encode("latin-1")


def stored(
    *fields: str,
    spec: Spec = PLAIN,
    ask: int = 0,
    method: int = 1,
    status: int = 200,
    framing: str = "Content-Length: 5",
    delay_s: int = 0,
) -> dict[str, int]:
    answer = _native.probe_cache_answer(
        response(*fields, status=status, framing=framing), spec.words(HONOUR), method, ask, NOW * S, (NOW + delay_s) * S
    )
    return dict(answer)


def verdict(*fields: str, **how: object) -> str:
    return STORE[stored(*fields, **how)["store"]]  # type: ignore[arg-type]


class TestStoring:
    """RFC 9111 3."""

    @pytest.mark.parametrize(
        "fields",
        [
            ["Cache-Control: max-age=60"],
            ["Cache-Control: s-maxage=60"],
            ["cache-control: MAX-AGE=60, Public"],
            ['Cache-Control: max-age="60"'],
            ["Cache-Control: foo, max-age=60, bar=baz"],
            ["Cache-Control: ,, max-age=60 ,"],
            [f"Expires: {http_date(NOW + 60)}"],
            [f"Date: {http_date(NOW)}", f"Expires: {http_date(NOW + 60)}"],
            ["Cache-Control: max-age=60", "Vary: Accept-Encoding, Accept-Language"],
            ["Cache-Control: must-understand, no-store, max-age=60"],
            ["Cache-Control: max-age=60, no-transform, immutable"],
        ],
    )
    def test_kept(self, fields: list[str]) -> None:
        assert verdict(*fields) == "STORE_YES"
        assert stored(*fields)["lifetime_ns"] == 60 * S

    @pytest.mark.parametrize(
        ("why", "fields"),
        [
            ("STORE_FRESHNESS", []),
            ("STORE_NO_STORE", ["Cache-Control: max-age=60, no-store"]),
            ("STORE_NO_STORE", ["Cache-Control: max-age=60", "Cache-Control: no-store"]),
            ("STORE_PRIVATE", ["Cache-Control: private, max-age=60"]),
            ("STORE_PRIVATE", ['Cache-Control: private="x-user, x-other", max-age=60']),
            ("STORE_FRESHNESS", ["Cache-Control: no-cache, max-age=60"]),
            ("STORE_FRESHNESS", ['Cache-Control: no-cache="set-cookie", max-age=60']),
            ("STORE_FRESHNESS", ["Cache-Control: max-age=0"]),
            ("STORE_FRESHNESS", ["Cache-Control: max-age=60, s-maxage=0"]),
            ("STORE_FRESHNESS", ["Cache-Control: max-age=sixty"]),
            ("STORE_FRESHNESS", ["Cache-Control: max-age=-1"]),
            ("STORE_FRESHNESS", ["Cache-Control: max-age"]),
            ("STORE_FRESHNESS", ["Cache-Control: max-age=60, max-age=0"]),
            ("STORE_FRESHNESS", ["Expires: 0"]),
            ("STORE_FRESHNESS", [f"Expires: {http_date(NOW - 1)}"]),
            ("STORE_FRESHNESS", [f"Expires: {http_date(NOW + 60)}", f"Expires: {http_date(NOW + 61)}"]),
            ("STORE_FRESHNESS", ["Cache-Control: max-age=60", "Age: 60"]),
            ("STORE_FRESHNESS", ["Cache-Control: max-age=60", f"Date: {http_date(NOW - 60)}"]),
            ("STORE_SET_COOKIE", ["Cache-Control: max-age=60", "Set-Cookie: a=b"]),
            ("STORE_SET_COOKIE", ["Cache-Control: public, max-age=60", "set-cookie: a=b"]),
            ("STORE_VARY", ["Cache-Control: max-age=60", "Vary: *"]),
            ("STORE_VARY", ["Cache-Control: max-age=60", "Vary: Accept, *"]),
            ("STORE_VARY", ["Cache-Control: max-age=60", "Vary: a b"]),
            ("STORE_VARY", ["Cache-Control: max-age=60", f"Vary: {'x' * 300}"]),
            ("STORE_FRAMING", ["Cache-Control: max-age=60", "Content-Range: bytes 0-4/5"]),
        ],
    )
    def test_not_kept(self, why: str, fields: list[str]) -> None:
        assert verdict(*fields) == why

    @pytest.mark.parametrize("status", [200, 203, 300, 301, 308, 404, 405, 410, 414, 501])
    def test_statuses_that_may_be_kept_without_being_told(self, status: int) -> None:
        assert verdict(status=status, spec=Spec(ttl_default_s=2)) == "STORE_YES"
        assert verdict(status=204, framing="", spec=Spec(ttl_default_s=2)) == "STORE_YES"

    @pytest.mark.parametrize("status", [201, 302, 303, 307, 400, 401, 403, 429, 500, 502, 503])
    def test_others_only_where_they_say_so(self, status: int) -> None:
        assert verdict(status=status, spec=Spec(ttl_default_s=2)) == "STORE_FRESHNESS"
        assert verdict("Cache-Control: max-age=5", status=status) == "STORE_YES"
        assert verdict("Cache-Control: public", status=status, spec=Spec(ttl_default_s=2)) == "STORE_YES"

    def test_parts_are_not_kept(self) -> None:
        assert verdict("Cache-Control: max-age=60", "Content-Range: bytes 0-4/9", status=206) == "STORE_STATUS"
        assert verdict("Cache-Control: max-age=60", status=416) == "STORE_STATUS"
        assert verdict("Cache-Control: max-age=60", status=412) == "STORE_STATUS"  # of a condition that passed by
        assert verdict("Cache-Control: public, max-age=60", status=417) == "STORE_STATUS"
        assert verdict("Cache-Control: max-age=60", status=304) == "STORE_STATUS"
        assert verdict("Cache-Control: max-age=60", ask=W["ASK_RANGE"]) == "STORE_METHOD"

    def test_must_understand_is_for_statuses_we_know(self) -> None:
        assert verdict("Cache-Control: must-understand, max-age=60", status=299) == "STORE_STATUS"

    @pytest.mark.parametrize("method", [0, 2, 3, 4, 5, 6, 7])
    def test_only_get(self, method: int) -> None:
        assert verdict("Cache-Control: max-age=60", method=method) == "STORE_METHOD"

    def test_credentials_need_public(self) -> None:
        ask = W["ASK_CREDENTIALS"]
        assert verdict("Cache-Control: max-age=60", ask=ask) == "STORE_CREDENTIALS"
        assert verdict("Cache-Control: s-maxage=60", ask=ask) == "STORE_CREDENTIALS"  # stricter than RFC 9111 3.5
        assert verdict("Cache-Control: must-revalidate, max-age=60", ask=ask) == "STORE_CREDENTIALS"
        assert verdict("Cache-Control: public, max-age=60", ask=ask) == "STORE_YES"
        assert verdict("Cache-Control: public, max-age=60", "Set-Cookie: a=b", ask=ask) == "STORE_SET_COOKIE"

    def test_a_request_may_forbid_it(self) -> None:
        assert verdict("Cache-Control: public, max-age=60", ask=W["ASK_NO_STORE"]) == "STORE_ASKED"

    def test_bodies_have_to_be_whole_and_small(self) -> None:
        long = "Cache-Control: max-age=60"
        assert verdict(long, framing="Transfer-Encoding: chunked") == "STORE_YES"
        assert verdict(long, framing="") == "STORE_FRAMING"  # ends with the connection
        assert verdict(long, framing="Content-Length: 101", spec=Spec(object_bytes_max=100)) == "STORE_SIZE"
        assert verdict(long, framing="Content-Length: 100", spec=Spec(object_bytes_max=100)) == "STORE_YES"


class TestFreshness:
    """RFC 9111 4.2."""

    def test_s_maxage_then_max_age_then_expires(self) -> None:
        later = f"Expires: {http_date(NOW + 300)}"
        assert stored("Cache-Control: max-age=60, s-maxage=30", later)["lifetime_ns"] == 30 * S
        assert stored("Cache-Control: max-age=60", later)["lifetime_ns"] == 60 * S
        assert stored(later)["lifetime_ns"] == 300 * S
        assert stored(later, f"Date: {http_date(NOW - 100)}")["lifetime_ns"] == 400 * S

    def test_numbers_too_large_are_very_large(self) -> None:
        assert stored("Cache-Control: max-age=99999999999999999999")["lifetime_ns"] == (2**31 - 1) * S

    def test_ttl_max_cuts(self) -> None:
        assert stored("Cache-Control: max-age=60", spec=Spec(ttl_max_s=10))["lifetime_ns"] == 10 * S
        aged = stored("Cache-Control: max-age=60", "Age: 30", spec=Spec(ttl_max_s=10))
        assert aged["lifetime_ns"] - aged["initial_age_ns"] == 10 * S

    def test_the_micro_ttl(self) -> None:
        spec = Spec(ttl_default_s=20)
        assert stored(spec=spec)["lifetime_ns"] == 20 * S
        assert stored(f"Last-Modified: {http_date(NOW - 100)}", spec=spec)["lifetime_ns"] == 10 * S
        assert stored(f"Last-Modified: {http_date(NOW - 1000)}", spec=spec)["lifetime_ns"] == 20 * S
        assert stored(f"Last-Modified: {http_date(NOW - 2)}", spec=spec)["lifetime_ns"] == 1 * S
        assert stored("Cache-Control: max-age=5", spec=spec)["lifetime_ns"] == 5 * S

    def test_age_is_what_rfc_9111_4_2_3_says(self) -> None:
        long = "Cache-Control: max-age=1000"
        assert stored(long)["initial_age_ns"] == 0
        assert stored(long, delay_s=3)["initial_age_ns"] == 3 * S
        assert stored(long, "Age: 10", delay_s=3)["initial_age_ns"] == 13 * S
        assert stored(long, "Age: 10", f"Date: {http_date(NOW - 40)}", delay_s=3)["initial_age_ns"] == 43 * S
        assert stored(long, f"Date: {http_date(NOW + 40)}")["initial_age_ns"] == 0
        assert stored(long, "Age: ten")["initial_age_ns"] == 0
        assert stored(long, "Age: 7, 9")["initial_age_ns"] == 7 * S
        assert stored(long, "Date: yesterday")["initial_age_ns"] == 0

    def test_an_origin_that_takes_longer_than_its_answer_is_fresh_can_still_be_spared(self) -> None:
        slow = stored("Cache-Control: max-age=1", delay_s=3)
        assert STORE[slow["store"]] == "STORE_YES"
        assert slow["initial_age_ns"] > slow["lifetime_ns"]  # for those who waited; stale to those who come later
        micro = stored(spec=Spec(ttl_default_s=1), delay_s=3)
        assert micro["lifetime_ns"] - micro["initial_age_ns"] == 1 * S

    def age(self, *fields: str, ask: bytes = b"", after_s: float, spec: Spec = PLAIN, calm: bool = True) -> str:
        words = spec.words(HONOUR)
        return AGES[
            _native.probe_cache_age(response(*fields), ask or request(), words, int(after_s * S), calm, NOW * S)
        ]

    def test_fresh_then_stale(self) -> None:
        assert self.age("Cache-Control: max-age=60", after_s=59.9) == "fresh"
        assert self.age("Cache-Control: max-age=60", after_s=60) == "stale"
        assert self.age("Cache-Control: max-age=60", "Age: 30", after_s=30) == "stale"

    @pytest.mark.parametrize(("before_s", "now_s", "fresh_s"), [(0, 10, 10), (60, 10, 10), (10, 60, 10), (0, 900, 600)])
    def test_the_shorter_of_then_and_now_is_the_longest(self, before_s: int, now_s: int, fresh_s: int) -> None:
        """A reload may shorten ttl_max: what is kept already obeys."""
        data = response("Cache-Control: max-age=600", "Age: 0")
        words = [Spec(ttl_max_s=s).words(HONOUR) for s in (now_s, before_s)]
        ages = [
            AGES[_native.probe_cache_age(data, request(), words[0], after_s * S, True, NOW * S, words[1])]
            for after_s in (fresh_s - 1, fresh_s)
        ]
        assert ages == ["fresh", "stale"]

    def test_stale_while_revalidate(self) -> None:
        fields = "Cache-Control: max-age=60, stale-while-revalidate=30"
        assert self.age(fields, after_s=61) == "allowed"
        assert self.age(fields, after_s=91) == "stale"
        assert self.age(fields + ", must-revalidate", after_s=61) == "never"
        assert self.age("Cache-Control: s-maxage=60, stale-while-revalidate=30", after_s=61) == "allowed"

    def test_stale_in_distress(self) -> None:
        spec = Spec(stale_max_s=100)
        assert self.age("Cache-Control: max-age=60", after_s=120, spec=spec) == "stale"
        assert self.age("Cache-Control: max-age=60", after_s=120, spec=spec, calm=False) == "allowed"
        assert self.age("Cache-Control: max-age=60", after_s=161, spec=spec, calm=False) == "stale"
        assert self.age("Cache-Control: s-maxage=60", after_s=61, spec=spec, calm=False) == "stale"
        for word in ("must-revalidate", "proxy-revalidate"):
            assert self.age(f"Cache-Control: max-age=60, {word}", after_s=61, spec=spec, calm=False) == "never"

    @pytest.mark.parametrize(
        ("field", "after_s", "heeded"),
        [
            ("Cache-Control: no-cache", 1, "stale"),
            ("Pragma: no-cache", 1, "stale"),
            ("Cache-Control: max-age=0", 1, "stale"),
            ("Cache-Control: max-age=10", 9, "fresh"),
            ("Cache-Control: max-age=10", 11, "stale"),
            ("Cache-Control: min-fresh=30", 40, "stale"),
            ("Cache-Control: min-fresh=10", 40, "fresh"),
        ],
    )
    def test_what_a_client_says_counts_where_it_is_honoured(self, field: str, after_s: int, heeded: str) -> None:
        fields = "Cache-Control: max-age=60"
        assert self.age(fields, ask=request(field), after_s=after_s) == "fresh"
        assert self.age(fields, ask=request(field), after_s=after_s, spec=Spec(honour=True)) == heeded

    def test_max_stale_is_always_heard(self) -> None:
        fields = "Cache-Control: max-age=60"
        assert self.age(fields, ask=request("Cache-Control: max-stale"), after_s=1000) == "allowed"
        assert self.age(fields, ask=request("Cache-Control: max-stale=10"), after_s=69) == "allowed"
        assert self.age(fields, ask=request("Cache-Control: max-stale=10"), after_s=71) == "stale"
        assert self.age(fields + ", must-revalidate", ask=request("Cache-Control: max-stale"), after_s=71) == "never"

    @pytest.mark.parametrize(
        ("fields", "after_s", "answered", "stands_in"),
        [
            ("Cache-Control: max-age=60", 100, False, True),
            ("Cache-Control: max-age=60", 161, False, False),
            ("Cache-Control: max-age=60", 100, True, False),  # the origin's own 5xx: only where the answer says so
            ("Cache-Control: max-age=60, stale-if-error=50", 100, True, True),
            ("Cache-Control: max-age=60, stale-if-error=50", 111, True, False),
            ("Cache-Control: max-age=60, stale-if-error=500", 500, False, True),
            ("Cache-Control: max-age=60, stale-if-error=50, must-revalidate", 61, False, False),
            ("Cache-Control: s-maxage=60", 61, False, False),
        ],
    )
    def test_what_stands_in_for_a_failure(self, fields: str, after_s: int, answered: bool, stands_in: bool) -> None:
        words = Spec(stale_max_s=100).words(HONOUR)
        assert _native.probe_cache_rescues(response(fields), words, after_s * S, answered, NOW * S) is stands_in


class TestRequests:
    """RFC 9111 5.2.1."""

    def flags(self, *fields: str, method: str = "GET", account: str = "") -> set[str]:
        found = _native.probe_cache_ask(request(*fields, method=method), NOW, account.encode())["flags"]
        return {name for name, bit in W.items() if name.startswith("ASK_") and found & bit}

    def test_what_is_not_for_a_cache(self) -> None:
        assert self.flags() == set()
        assert self.flags(method="HEAD") == {"ASK_HEAD"}
        assert self.flags("Content-Length: 0", method="POST") == {"ASK_PASS"}
        assert self.flags("Content-Length: 3") == {"ASK_PASS"}  # a body that is in no key
        assert self.flags("Transfer-Encoding: chunked") == {"ASK_PASS"}

    @pytest.mark.parametrize(
        "fields",
        [
            ("Content-Length: 0",),
            ("Expect: 100-continue",),
            ("Expect: 100-continue", "Content-Length: 0"),
            ('If-Match: "x"',),
            ("If-Match: *", 'If-Match: "x"'),
            (f"If-Unmodified-Since: {http_date(NOW)}",),
            ("Connection: upgrade", "Upgrade: websocket"),  # whether the area lets it through is asked elsewhere
        ],
    )
    def test_what_a_cache_may_overlook(self, fields: tuple[str, ...]) -> None:
        """RFC 9110 10.1.1, 13.1.1, 13.1.4, 7.8."""
        assert self.flags(*fields) == set()

    def test_credentials(self) -> None:
        assert self.flags("Cookie: a=b") == {"ASK_CREDENTIALS"}
        assert self.flags("Authorization: Basic eDp5") == {"ASK_CREDENTIALS"}
        assert self.flags("X-User: alice") == set()
        assert self.flags("X-User: alice", account="x-user") == {"ASK_CREDENTIALS"}
        assert self.flags("X-User:", account="x-user") == {"ASK_CREDENTIALS"}  # an empty one says something, too
        assert self.flags("X-Users: alice", account="x-user") == set()

    def test_directives(self) -> None:
        assert self.flags("Cache-Control: no-cache, no-store, only-if-cached") == {
            "ASK_NO_CACHE", "ASK_NO_STORE", "ASK_ONLY_IF_CACHED",
        }  # fmt: skip
        assert self.flags("Pragma: no-cache") == {"ASK_NO_CACHE"}
        assert self.flags("Pragma: no-cache", "Cache-Control: max-age=5") == set()
        assert self.flags("Range: bytes=0-") == {"ASK_RANGE"}

    def test_conditions(self) -> None:
        asked = _native.probe_cache_ask(
            request('If-None-Match: "a", W/"b"', f"If-Modified-Since: {http_date(NOW)}"), NOW
        )
        assert asked["none_match"] == b'"a", W/"b"'
        assert not asked["flags"] & W["ASK_SINCE"]
        asked = _native.probe_cache_ask(request(f"If-Modified-Since: {http_date(NOW)}"), NOW)
        assert asked["flags"] & W["ASK_SINCE"]
        assert asked["modified_since_s"] == NOW

    @pytest.mark.parametrize(
        ("stored_fields", "asked", "holds"),
        [
            ('ETag: "a"', 'If-None-Match: "a"', True),
            ('ETag: W/"a"', 'If-None-Match: "a"', True),
            ('ETag: "a"', 'If-None-Match: "x", W/"a" , "y"', True),
            ('ETag: "a"', "If-None-Match: *", True),
            ('ETag: "a"', 'If-None-Match: "A"', False),
            ('ETag: "a"', 'If-None-Match: "x,a"', False),
            ('ETag: "a"', "If-None-Match: a", False),
            ('ETag: "a,b"', 'If-None-Match: "a,b"', True),
            ("X: y", 'If-None-Match: "a"', False),
            (f"Last-Modified: {http_date(NOW)}", f"If-Modified-Since: {http_date(NOW)}", True),
            (f"Last-Modified: {http_date(NOW)}", f"If-Modified-Since: {http_date(NOW - 1)}", False),
            (f"Last-Modified: {http_date(NOW)}", "If-Modified-Since: never", False),
            ("X: y", f"If-Modified-Since: {http_date(NOW)}", False),
        ],
    )
    def test_304(self, stored_fields: str, asked: str, holds: bool) -> None:
        assert _native.probe_cache_not_modified(response(stored_fields), request(asked), NOW * S) is holds

    @pytest.mark.parametrize(
        ("name", "kept_back", "heeded"),
        [
            ("If-None-Match", True, True),
            ("If-Modified-Since", True, True),
            ("If-Match", True, True),
            ("If-Unmodified-Since", True, True),
            ("If-Range", True, True),
            ("Expect", True, True),
            ("Content-Length", True, True),
            ("X-Forwarded-Scheme", True, True),
            ("X-Forwarded-Anything", True, True),
            ("X-Original-URL", True, True),
            ("X-Rewrite-Url", True, True),
            ("X-Host", True, True),
            ("X-HTTP-Method-Override", True, True),
            ("Cache-Control", True, False),
            ("Pragma", True, False),
            ("Accept", False, False),
            ("X-Requested-With", False, False),
            ("Origin", False, False),
            ("X-Forwarded-For", False, False),  # these are ours
            ("X-Forwarded-Host", False, False),
            ("x-forwarded-host2", True, True),
        ],
    )
    def test_what_the_origin_of_a_shared_answer_does_not_hear(self, name: str, kept_back: bool, heeded: bool) -> None:
        assert _native.probe_cache_strips(name.encode(), False) is kept_back
        assert _native.probe_cache_strips(name.encode(), True) is (kept_back and heeded)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111777),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
        ("Sun Nov  6 08:49:37 1994", 784111777),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Tue, 29 Feb 2000 12:00:00 GMT", 951825600),
        ("Sat, 31 Dec 2016 23:59:60 GMT", 1483228800),
        ("Friday, 31-Dec-99 23:59:59 GMT", 946684799),
        ("Monday, 01-Jan-40 00:00:00 GMT", 2208988800),
        ("Sun, 06 Nov 1994 08:49:37 UTC", None),
        ("Sun, 06 Nov 1994 08:49:37", None),
        ("Sun, 31 Feb 1994 08:49:37 GMT", None),
        ("Sun, 29 Feb 1900 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 24:49:37 GMT", None),
        ("Sun, 06 Foo 1994 08:49:37 GMT", None),
        ("Sun,  6 Nov 1994 08:49:37 GMT", None),
        ("", None),
        ("0", None),
        ("-1", None),
        (",", None),
        ("," * 29, None),
        ("x" * 24, None),
    ],
)
def test_dates(text: str, expected: int | None) -> None:
    assert _native.probe_cache_date(text.encode(), NOW) == expected


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 4_000_000_000))
def test_dates_of_all_days(at_s: int) -> None:
    moment = time.gmtime(at_s)
    assert _native.probe_cache_date(http_date(at_s).encode(), NOW) == at_s
    assert _native.probe_cache_date(time.asctime(moment).encode(), NOW) == at_s


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40))
def test_no_bytes_are_a_wild_date(data: bytes) -> None:
    found = _native.probe_cache_date(data, NOW)
    assert found is None or isinstance(found, int)


NUMBERS = st.sampled_from(["0", "1", "5", "30", "60", "600", "x", "", '"7"', "99999999999"])
WORDS = st.one_of(
    st.sampled_from(
        ["no-store", "no-cache", "private", 'private="a, b"', "public", "must-revalidate", "proxy-revalidate", "foo",
         "must-understand", "no-transform", "immutable", "max-age", 'ext="a\\"b, no-store"', "=", "max-age=1 no-store"]
    ),
    st.builds(
        "{}={}".format,
        st.sampled_from(["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error", "Max-Age"]),
        NUMBERS,
    ),
)  # fmt: skip
CONTROL = st.lists(WORDS, min_size=1, max_size=4).map(lambda words: ("Cache-Control", ", ".join(words)))
OFFSETS = st.sampled_from([-1000, -60, -5, 0, 5, 60, 1000])
DATES = st.one_of(OFFSETS.map(lambda offset: http_date(NOW + offset)), st.sampled_from(["0", "soon"]))
FIELDS = st.one_of(
    CONTROL,
    st.tuples(st.sampled_from(["Expires", "Last-Modified"]), DATES),
    st.tuples(st.just("Age"), st.sampled_from(["0", "3", "50", "x", "4, 5"])),
    st.tuples(st.just("Vary"), st.sampled_from(["Accept", "*", "accept, Accept-Encoding", ", ,", "a b"])),
    st.tuples(st.sampled_from(["ETag", "Set-Cookie", "X-Other", "Content-Range"]), st.just("v")),
)
ANSWERS = st.tuples(
    st.lists(FIELDS, max_size=5),
    st.one_of(st.none(), DATES),
    st.sampled_from([200, 200, 200, 201, 206, 299, 301, 302, 404, 412, 416, 417, 500, 503]),
)
SPECS = st.builds(
    Spec,
    ttl_default_s=st.sampled_from([0, 0, 1, 20]),
    ttl_max_s=st.sampled_from([0, 0, 10]),
    stale_max_s=st.sampled_from([0, 100]),
    honour=st.booleans(),
)


@settings(max_examples=1500, deadline=None)
@given(ANSWERS, SPECS, st.booleans(), st.sampled_from([0, 0, 3]))
def test_storing_beside_the_reference(
    answer: tuple[list[tuple[str, str]], str | None, int], spec: Spec, credentials: bool, delay_s: int
) -> None:
    fields, date, status = answer
    every = fields + ([("Date", date)] if date is not None else [])
    ask = W["ASK_CREDENTIALS"] if credentials else 0
    asked_s, got_s = NOW, NOW + delay_s
    data = response(*(f"{n}: {v}" for n, v in every), status=status)
    found = _native.probe_cache_answer(data, spec.words(HONOUR), 1, ask, asked_s * S, got_s * S)
    assert found["initial_age_ns"] == reference.initial_age(every, asked_s, got_s) * S
    expected = reference.storable(every, status, spec, with_credentials=credentials, asked_s=asked_s, got_s=got_s)
    assert (found["store"] == W["STORE_YES"]) == expected
    if expected:
        fresh_s = reference.lifetime(every, status, spec, asked_s, got_s)
        if spec.ttl_max_s:
            fresh_s = min(fresh_s, max(reference.initial_age(every, asked_s, got_s), 0) + spec.ttl_max_s)
        assert found["lifetime_ns"] == pytest.approx(fresh_s * S)


NAMED = st.tuples(
    st.sampled_from(["Cookie", "authorization", "X-User", "x-USER", "X-Userx", "Accept", "X_User"]),
    st.sampled_from(["", "v"]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(NAMED, max_size=4), st.sampled_from(["", "x-user", "accept"]))
def test_credentials_beside_the_reference(fields: list[tuple[str, str]], account: str) -> None:
    asked = _native.probe_cache_ask(request(*(f"{n}: {v}" for n, v in fields)), NOW, account.encode())
    assert bool(asked["flags"] & W["ASK_CREDENTIALS"]) == reference.credentials(fields, account)


ASKS = st.lists(
    st.one_of(
        st.sampled_from(["no-cache", "no-store", "max-stale", "only-if-cached"]),
        st.builds("{}={}".format, st.sampled_from(["max-age", "min-fresh", "max-stale"]), NUMBERS),
    ),
    max_size=3,
)


@settings(max_examples=1500, deadline=None)
@given(ANSWERS, SPECS, ASKS, st.sampled_from([0, 4, 5, 6, 59, 60, 61, 100, 700]), st.booleans())
def test_freshness_beside_the_reference(
    answer: tuple[list[tuple[str, str]], str | None, int], spec: Spec, words: list[str], resident_s: int, calm: bool
) -> None:
    fields, date, status = answer
    every = fields + ([("Date", date)] if date is not None else [])
    asked = [("Cache-Control", ", ".join(words))] if words else []
    data = response(*(f"{n}: {v}" for n, v in every), status=status)
    ask = request(*(f"{n}: {v}" for n, v in asked))
    found = AGES[_native.probe_cache_age(data, ask, spec.words(HONOUR), resident_s * S, calm, NOW * S)]
    expected = reference.freshness(every, status, spec, asked, resident_s=resident_s, calm=calm, got_s=NOW)
    assert found == expected


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(alphabet="ab,* -_\t", max_size=12), max_size=3))
def test_vary_beside_the_reference(given_values: list[str]) -> None:
    data = response(*(f"Vary: {value}" for value in given_values))
    fields = [("Vary", value) for value in given_values]
    expected = reference.vary(fields)
    assert _native.probe_cache_vary(data) == (None if expected is None else expected.encode())
