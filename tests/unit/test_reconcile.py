"""What is wanted against what backends have, in any order of wishes, changes of what is allowed, and accidents.

The backends here are dictionaries that keep to the interface and can lose, forget and refuse: every real one has its
own suite (tests/net).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from scrubber.enforce.backend import Backend, Count, Door, Drop, Settings
from scrubber.enforce.envelope import Envelope, Floor, Terms
from scrubber.enforce.net import Net, is_host, net_of, overlap
from scrubber.enforce.reconcile import Reconciler
from scrubber.errors import ValueRefused

S = 1_000_000_000
NETS = [net_of(text) for text in (
    "198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.0/24", "198.51.0.0/16", "203.0.113.9", "192.0.2.1",
    "2001:db8::/64", "2001:db8:0:1::/64", "2001:db8::/48", "10.0.0.0/8", "127.0.0.1", "2001:db8::1", "0.0.0.0/0",
)]  # fmt: skip
OURS = net_of("192.0.2.0/24")


class Shelf(Backend):
    """A backend in memory. `never`: asked at each put, whether this may be."""

    name = "shelf"

    def __init__(self, settings: Settings = Settings(()), *, never: Callable[[Net], bool] = lambda _: False) -> None:  # noqa: B008
        self.drops: dict[Net, Drop] = {}
        self.never = never
        self.most = settings.hosts_max
        self.broken = False
        self.closed: bool | None = None
        self.doors: Sequence[Door] = ()
        self.acts = 0

    def apply(self, put: Mapping[Net, Drop], remove: Collection[Net], now_ns: int) -> dict[Net, str]:
        failed = {}
        for net in remove:
            self.drops.pop(net, None)
        for net, drop in put.items():
            assert not self.never(net), "an act against what is never blocked"
            assert drop.until_ns > now_ns
            self.acts += 1
            if net not in self.drops and len(self.drops) >= self.most:
                failed[net] = "full"
            else:
                self.drops[net] = drop
        return failed

    def listed(self, now_ns: int) -> dict[Net, Drop]:
        if self.broken:
            raise OSError("it does not say")
        self.drops = {net: drop for net, drop in self.drops.items() if drop.until_ns > now_ns}
        return dict(self.drops)

    def counted(self) -> dict[Net, Count]:
        return dict.fromkeys(self.drops, Count(1, 40))

    def use_doors(self, doors: Sequence[Door]) -> None:
        self.doors = doors

    def close(self, *, withdraw: bool) -> None:
        self.closed = withdraw


def floor(**how: object) -> Floor:
    bounds = {"v4_widest": 16, "v6_widest": 48, "ttl_ns_max": 3600 * S, "hosts_max": 100, "prefixes_max": 10}
    return Floor(**{"protects": (OURS,), **bounds, **how})  # type: ignore[arg-type]


def terms(never: Sequence[Net] = ()) -> Terms:
    return Terms(never=tuple(never), v4_widest=16, v6_widest=48, ttl_ns_max=3600 * S, hosts_max=100, prefixes_max=10)


def made(*shelves: Shelf, **how: object) -> Reconciler:
    reconciler = Reconciler(shelves, Envelope(floor(**how)), lambda _: None)
    reconciler.use(terms(), (), doors_changed=False)
    return reconciler


def run(reconciler: Reconciler, now_ns: int) -> None:
    while reconciler.step(now_ns, 3):
        pass


def test_what_is_wanted_is_put_and_what_is_not_is_taken_out() -> None:
    shelf = Shelf()
    reconciler = made(shelf)
    a, b, c = NETS[:3]
    reconciler.change({a: Drop(9 * S, 1), b: Drop(9 * S, 1)}, [])
    run(reconciler, S)
    assert shelf.drops == {a: Drop(9 * S, 1), b: Drop(9 * S, 1)}
    reconciler.change({a: Drop(20 * S, 3)}, [b, c])
    run(reconciler, S)
    assert shelf.drops == {a: Drop(20 * S, 3)}
    acts = shelf.acts
    reconciler.replace({a: Drop(20 * S, 3)})
    run(reconciler, S)
    assert shelf.acts == acts  # nothing to be done
    reconciler.replace({c: Drop(9 * S, 1)})
    run(reconciler, S)
    assert set(shelf.drops) == {c}
    assert reconciler.in_force() == {"shelf": 1}


def test_what_is_over_is_taken_out_of_a_backend_that_keeps_it() -> None:
    shelf = Shelf()
    reconciler = made(shelf)
    reconciler.change({NETS[0]: Drop(5 * S, 1)}, [])
    run(reconciler, S)
    assert reconciler.due_ns() == 5 * S
    run(reconciler, 5 * S)
    assert shelf.drops == {}
    assert reconciler.wanted == {}
    assert reconciler.due_ns() is None


def test_a_longer_time_is_not_cut_by_the_end_of_the_shorter() -> None:
    shelf = Shelf()
    reconciler = made(shelf)
    reconciler.change({NETS[0]: Drop(5 * S, 1)}, [])
    reconciler.change({NETS[0]: Drop(50 * S, 1)}, [])
    run(reconciler, 6 * S)
    assert shelf.drops == {NETS[0]: Drop(50 * S, 1)}


def test_what_one_backend_is_full_for_the_next_one_takes() -> None:
    first, second = Shelf(Settings((), hosts_max=1)), Shelf(Settings((), hosts_max=1))
    second.name = "other"  # type: ignore[misc]
    reconciler = made(first, second)
    reconciler.change({net: Drop(9 * S, 1) for net in NETS[:3]}, [])
    run(reconciler, S)
    assert (len(first.drops), len(second.drops)) == (1, 1)
    assert list(reconciler.refused.values()) == ["other: full"]
    assert reconciler.in_force() == {"shelf": 1, "other": 1}


def test_the_kernel_is_believed() -> None:
    """Something is gone, something is there that nobody wanted, something is not as it was put."""
    shelf = Shelf()
    reconciler = made(shelf)
    a, b, c = NETS[:3]
    reconciler.change({a: Drop(90 * S, 1), b: Drop(90 * S, 1)}, [])
    run(reconciler, S)
    del shelf.drops[a]
    shelf.drops[b] = Drop(30 * S, 1)
    shelf.drops[c] = Drop(90 * S, 1)
    assert reconciler.compare(2 * S) == 3
    run(reconciler, 2 * S)
    assert shelf.drops == {a: Drop(90 * S, 1), b: Drop(90 * S, 1)}
    assert reconciler.compare(3 * S) == 0
    assert reconciler.healed == 3
    shelf.broken = True
    with pytest.raises(OSError, match="does not say"):
        reconciler.compare(4 * S)


def test_what_has_just_ended_is_no_difference() -> None:
    shelf = Shelf()
    reconciler = made(shelf)
    reconciler.change({NETS[0]: Drop(5 * S, 1)}, [])
    run(reconciler, S)
    shelf.drops.clear()  # a little before we would say so
    assert reconciler.compare(4 * S) == 0
    run(reconciler, 4 * S)


def test_a_list_that_cannot_be_read_changes_nothing() -> None:
    shelf = Shelf()
    reconciler = made(shelf)
    reconciler.change({NETS[0]: Drop(9 * S, 1)}, [])
    run(reconciler, S)
    with pytest.raises(ValueRefused):
        reconciler.use(terms([b"\1\2\3\4\x18"]), (), doors_changed=False)
    run(reconciler, S)
    assert set(shelf.drops) == {NETS[0]}


def test_the_end() -> None:
    shelves = [Shelf(), Shelf()]
    made(*shelves).close(withdraw=True)
    assert [shelf.closed for shelf in shelves] == [True, True]


@given(st.lists(st.sampled_from(NETS), max_size=40), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_counts_never_pass_their_bounds(nets: list[Net], hosts_max: int) -> None:
    shelf = Shelf()
    reconciler = made(shelf, hosts_max=hosts_max, prefixes_max=1)
    for net in nets:
        reconciler.change({net: Drop(9 * S, 1)}, [])
        run(reconciler, S)
        assert sum(is_host(each) for each in shelf.drops) <= hosts_max
        assert sum(not is_host(each) for each in shelf.drops) <= 1


class AnyOrder(RuleBasedStateMachine):
    """Blocks, lists, reloads, exemptions, time, and what befalls processes and kernel, in any order."""

    @initialize(never=st.lists(st.sampled_from(NETS[:10]), max_size=2))
    def begin(self, never: list[Net]) -> None:
        self.now_ns = S
        self.always = never
        self.never: list[Net] = []
        self.shelves = [Shelf(Settings((), hosts_max=3), never=self.forbidden), Shelf(never=self.forbidden)]
        self.start()

    def start(self) -> None:
        self.reconciler = Reconciler(self.shelves, Envelope(floor(never=tuple(self.always))), lambda _: None)
        self.reconciler.use(terms(self.never), (), doors_changed=False)

    def forbidden(self, net: Net) -> bool:
        listed = (*self.always, *self.never, OURS, net_of("127.0.0.1"))
        too_wide = net[-1] < (16 if len(net) == 5 else 48)
        return too_wide or any(overlap(net, each) for each in listed)

    @rule(net=st.sampled_from(NETS), ttl_s=st.integers(-5, 5000), doors=st.integers(1, 3))
    def block(self, net: Net, ttl_s: int, doors: int) -> None:
        self.reconciler.change({net: Drop(max(self.now_ns + ttl_s * S, 0), doors)}, [])

    @rule(nets=st.lists(st.sampled_from(NETS)), ttl_s=st.integers(1, 5000))
    def feed(self, nets: list[Net], ttl_s: int) -> None:
        self.reconciler.replace({net: Drop(self.now_ns + ttl_s * S, 1) for net in nets})

    @rule(net=st.sampled_from(NETS))
    def lift(self, net: Net) -> None:
        self.reconciler.change({}, [net])

    @rule(never=st.lists(st.sampled_from(NETS), max_size=3))
    def reload(self, never: list[Net]) -> None:
        self.never = never
        self.reconciler.use(terms(never), (), doors_changed=False)

    @rule(most=st.integers(1, 5))
    def step(self, most: int) -> None:
        self.reconciler.step(self.now_ns, most)

    @rule(passed_s=st.integers(1, 2000))
    def time_passes(self, passed_s: int) -> None:
        self.now_ns += passed_s * S

    @rule()
    def enforcer_dies(self) -> None:
        """The kernel keeps what it has; the next one knows nothing."""
        self.start()

    @rule(index=st.integers(0, 1))
    def kernel_forgets(self, index: int) -> None:
        self.shelves[index].drops.clear()

    @rule(net=st.sampled_from(NETS), index=st.integers(0, 1))
    def somebody_puts(self, net: Net, index: int) -> None:
        self.shelves[index].drops[net] = Drop(self.now_ns + 60 * S, 1)

    @rule()
    def compare(self) -> None:
        self.reconciler.compare(self.now_ns)

    @rule()
    def settle(self) -> None:
        """Once nothing is left to be done, what there is is what is wanted and allowed, and each thing once."""
        self.reconciler.compare(self.now_ns)
        run(self.reconciler, self.now_ns)
        self.reconciler.compare(self.now_ns)
        run(self.reconciler, self.now_ns)
        there = [net for shelf in self.shelves for net in shelf.drops]
        assert len(there) == len(set(there))
        assert set(there) == set(self.reconciler.wanted)
        assert not any(self.forbidden(net) for net in there)

    @invariant()
    def numbers_agree(self) -> None:
        if hasattr(self, "reconciler"):
            assert sum(self.reconciler.in_force().values()) == sum(self.reconciler._kinds.values())


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
