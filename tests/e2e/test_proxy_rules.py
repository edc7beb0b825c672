"""Rules on the wire: what each measure looks like from outside, that it touches whom it names alone, and its end."""

from __future__ import annotations

import contextlib
import json
import time

import pytest

from tests.e2e.proxy import Proxy, paced
from tests.e2e.recorder import Exchange, Recorder, respond
from tests.e2e.wire import Answer, Closed, Wire, eventually, fetch

THEM = "127.0.7.1"  # the client that a test provokes with
OTHER = "127.0.7.2"


def rule(then: str, limit: str = "1/min burst 3", per: str = "client", more: str = "", name: str = "tested") -> str:
    per_line = f'per = "{per}"\n' if per else ""
    limit_line = f'limit = "{limit}"\n' if limit else ""
    return f'[[rule]]\nname = "{name}"\n{per_line}{limit_line}then = [{then}]\n{more}\n'


def outcome(port: int, target: str = "/", source: str = THEM, headers: str = "") -> int | str:
    """Status of one GET on a connection of its own, or how it ended."""
    try:
        return fetch(port, target, headers, source=source).status
    except Closed as error:
        return "reset" if error.reset else "closed"
    except ConnectionResetError:
        return "reset"


def exceed(port: int, source: str = THEM, count: int = 4) -> list[int | str]:
    return [outcome(port, source=source) for _ in range(count)]


class TestThrottle:
    def test_over_the_limit_is_429_with_retry_after(self, proxy: type[Proxy]) -> None:
        with proxy(rules=rule('"throttle"')) as found:
            with Wire(found.port, source=THEM) as wire:
                answers = [wire.get("/") for _ in range(6)]
                assert [a.status for a in answers] == [200] * 3 + [429] * 3, "on one connection, which lives on"
            assert 1 <= int(answers[3].one("retry-after") or 0) <= 60
            assert answers[3].one("ratelimit") is None
            assert answers[3].one("x-request-id")
            assert len(found.origin.requests) == 3, "what is throttled never reaches the origin"
            assert outcome(found.port, source=OTHER) == 200
            found.whole()

    def test_retry_after_is_true(self, proxy: type[Proxy]) -> None:
        with proxy(rules=rule('"throttle"', "1/s burst 1")) as found, Wire(found.port, source=THEM) as wire:
            assert wire.get("/").status == 200
            refused = wire.get("/")
            assert refused.status == 429
            time.sleep(int(refused.one("retry-after") or 0) + 0.05)
            assert wire.get("/").status == 200

    def test_ratelimit_fields_behind_their_switch(self, proxy: type[Proxy]) -> None:
        with (
            proxy(rules=rule('"throttle"'), area="ratelimit_fields = true") as found,
            Wire(found.port, source=THEM) as wire,
        ):
            answers = [wire.get("/") for _ in range(4)]
            assert answers[3].status == 429
            assert answers[3].one("ratelimit")
            assert answers[3].one("ratelimit-policy")

    def test_throttled_body_is_not_a_request(self, proxy: type[Proxy]) -> None:
        """What follows a refused head is its body, never the next request."""
        with proxy(rules=rule('"throttle"', "1/min burst 1")) as found, Wire(found.port, source=THEM) as wire:
            assert wire.get("/").status == 200
            body = b"GET /hidden HTTP/1.1\r\nHost: site.test\r\n\r\n"
            wire.send(b"POST /p HTTP/1.1\r\nHost: site.test\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert wire.answer("POST").status == 429
            with contextlib.suppress(Closed, ConnectionError):
                assert wire.get("/next").status == 429
            assert len(found.origin.requests) == 1


class TestMeasures:
    def test_deny_is_403(self, proxy: type[Proxy]) -> None:
        with proxy(rules=rule('"deny"')) as found:
            assert exceed(found.port) == [200, 200, 200, 403]
            assert outcome(found.port, source=OTHER) == 200
            answer = fetch(found.port, "/", "Accept: application/json\r\n", source=THEM)
            assert answer.status == 403
            assert answer.one("content-type") == "application/problem+json"

    def test_drop_is_a_reset(self, proxy: type[Proxy]) -> None:
        with proxy(rules=rule('"drop"')) as found:
            assert exceed(found.port) == [200, 200, 200, "reset"]
            assert outcome(found.port, source=OTHER) == 200
            found.whole()

    def test_tarpit_holds_and_then_ends(self, proxy: type[Proxy]) -> None:
        with proxy(rules=rule('"tarpit"'), limits='tarpit_time = "700ms"') as found:
            assert exceed(found.port, count=3) == [200] * 3
            with Wire(found.port, source=THEM) as wire:
                began = time.monotonic()
                wire.send(b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n")
                assert wire.ends(8) != "open"
                assert time.monotonic() - began >= 0.6
            assert outcome(found.port, source=OTHER) == 200
            assert len(found.origin.requests) == 4
            found.whole()

    def test_tarpit_is_capped(self, proxy: type[Proxy]) -> None:
        """Beyond the cap nobody more is held."""
        with proxy(rules=rule('"tarpit"'), limits='tarpit_time = "5s"', gateway="[limits]\ntarpit_max = 2\n") as found:
            assert exceed(found.port, count=3) == [200] * 3
            wires = [Wire(found.port, source=THEM) for _ in range(5)]
            for wire in wires:
                wire.send(b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n")
            eventually(lambda: found.gauge("tarpit_held") == 2)
            answered = []
            for wire in wires:
                wire.sock.settimeout(0.3)
                with contextlib.suppress(TimeoutError):
                    answered.append(wire.answer().status)
            assert len(answered) == 3
            assert set(answered) <= {403, 429}
            for wire in wires:
                wire.sock.close()
            found.whole()

    def test_block_shuts_out_and_expires(self, proxy: type[Proxy]) -> None:
        with proxy(rules=rule('"block 2s"', "2/s burst 3")) as found:
            exceed(found.port, count=5)
            assert outcome(found.port) == "reset", "blocked at accept"
            assert [block["source"] for block in found.blocks()] == [THEM]
            assert outcome(found.port, source=OTHER) == 200
            time.sleep(1.0)
            assert outcome(found.port) == "reset", "not yet"
            eventually(lambda: outcome(found.port) == 200, 10, "a block did not expire")
            eventually(lambda: found.blocks() == [])
            found.whole()

    def test_a_block_by_hand_and_its_end(self, proxy: type[Proxy]) -> None:
        with proxy(rules=rule('"block 10m"')) as found:
            assert outcome(found.port) == 200
            done = found.running.cli("block", THEM, "--for", "10m", "--reason", "test")
            assert done.returncode == 0, done.stdout + done.stderr
            assert outcome(found.port) == "reset"
            done = found.running.cli("unblock", THEM)
            assert done.returncode == 0, done.stdout + done.stderr
            assert outcome(found.port) == 200

    def test_an_open_connection_of_a_blocked_client_ends(self, proxy: type[Proxy]) -> None:
        with proxy(rules=rule('"block 10m"')) as found, Wire(found.port, source=THEM) as wire:
            assert wire.get("/").status == 200
            exceed(found.port)
            with pytest.raises((Closed, ConnectionError)):
                wire.get("/")

    def test_a_block_leaves_the_listener_s_other_areas_alone(self, proxy: type[Proxy]) -> None:
        """It binds its mandate's areas: here after the head, as another area is asked for over the same connections."""
        with Recorder() as other:
            other.default = respond(b"other")
            area = f'\n[[area]]\nname = "other"\nhosts = ["other.test"]\norigins = ["{other.address}"]\n'
            with proxy(rules=rule('"block 10m"'), extra=area) as found:
                assert exceed(found.port) == [200, 200, 200, 403]
                assert [block["source"] for block in found.blocks()] == [THEM]
                with Wire(found.port, source=THEM) as wire:
                    denied = wire.get("/", "Accept: application/json\r\n")
                    assert denied.status == 403
                    assert json.loads(denied.body)["case"]
                    assert wire.get("/", host="other.test").body == b"other", "the connection lives on"
                    assert wire.get("/").status == 403
                assert outcome(found.port, source=OTHER) == 200
                line = found.lines("/", 8)[-2]
                assert (line["scrubber.verdict"], line["http.response.status_code"]) == ("DENY", 403)

    def test_never_block_is_never_blocked(self, proxy: type[Proxy]) -> None:
        """127.0.0.1 is our own address, the mandate names another: no measure reaches them."""
        with proxy(rules=rule('"block 10m"'), proportion='never_block = ["127.0.7.9"]') as found:
            for source in ("127.0.7.9", "127.0.0.1"):
                assert exceed(found.port, source=source, count=8) == [200] * 8
            assert found.blocks() == []
            assert exceed(found.port)[3] != 200, "the rule works"

    def test_a_ladder_is_climbed(self, proxy: type[Proxy]) -> None:
        with proxy(rules=rule('"observe 400ms", "throttle 400ms", "deny 400ms", "block 10m"', "5/s burst 2")) as found:
            seen: list[int | str] = []
            for _ in paced(100, 25):
                seen.append(outcome(found.port))
                if seen[-1] == "reset":
                    break
            steps = [s for i, s in enumerate(seen) if i == 0 or seen[i - 1] != s]
            assert seen[-1] == "reset", steps
            assert {429, 403} <= set(seen), steps
            assert seen.index(429) < seen.index(403) < seen.index("reset")

    def test_a_rung_that_is_not_available_is_climbed_past(self, proxy: type[Proxy]) -> None:
        with proxy(rules=rule('"throttle 300ms", "challenge 300ms", "deny"', "2/s burst 1")) as found:
            seen = [outcome(found.port) for _ in paced(60, 25)]
            assert set(seen) <= {200, 429, 403}, "a challenge that is not there stays on the rung below"
            assert seen[-1] == 403


class TestDryRun:
    def test_touches_nothing_and_records(self, proxy: type[Proxy]) -> None:
        rules = rule('"deny"', name="a") + rule('"block 10m"', name="b")
        with proxy(rules=rules, gateway="enforce = false\n") as found:
            assert exceed(found.port, count=12) == [200] * 12
            assert found.blocks() == []
            assert len(found.origin.requests) == 12
            lines = found.lines("/", 12)
            assert [line["scrubber.verdict"] for line in lines[:3]] == ["PASS"] * 3
            assert {line["scrubber.verdict"] for line in lines[3:]} <= {"DENY", "DROP"}
            assert all(line["scrubber.enforced"] is False for line in lines[3:])


class TestKeys:
    def test_account_by_header(self, proxy: type[Proxy]) -> None:
        with proxy(rules=rule('"throttle"', per="account+client"), area='account = "header:X-Account"') as found:

            def ask(account: str, source: str = THEM) -> int | str:
                return outcome(found.port, source=source, headers=f"X-Account: {account}\r\n")

            assert [ask("ann") for _ in range(4)] == [200, 200, 200, 429]
            assert ask("bob") == 200
            assert ask("ann", OTHER) == 200, "the pair is limited, not the account: nobody else can lock its owner out"

    @pytest.mark.parametrize(
        ("account", "first", "second"),
        [
            ("cookie:sid", "Cookie: a=1; sid=ann; b=2\r\n", "Cookie: sid=bob\r\n"),
            ("bearer", "Authorization: Bearer ann.x.y\r\n", "Authorization: Bearer bob.x.y\r\n"),
            ("basic", "Authorization: Basic YW5uOnB3\r\n", "Authorization: Basic Ym9iOnB3\r\n"),
        ],
    )
    def test_accounts_of_other_kinds(self, proxy: type[Proxy], account: str, first: str, second: str) -> None:
        with proxy(rules=rule('"throttle"', per="account+client"), area=f'account = "{account}"') as found:
            assert [outcome(found.port, headers=first) for _ in range(4)] == [200, 200, 200, 429]
            assert outcome(found.port, headers=second) == 200

    def test_prefix(self, proxy: type[Proxy]) -> None:
        with proxy(rules=rule('"throttle"', per="prefix")) as found:
            assert [outcome(found.port, source=f"127.0.7.{i + 1}") for i in range(4)] == [200, 200, 200, 429]
            assert outcome(found.port, source="127.0.8.1") == 200

    def test_path_and_client(self, proxy: type[Proxy]) -> None:
        with proxy(rules=rule('"throttle"', per="path+client")) as found:
            assert [outcome(found.port, "/a") for _ in range(4)] == [200, 200, 200, 429]
            assert outcome(found.port, "/b") == 200

    def test_conditions(self, proxy: type[Proxy]) -> None:
        only = rule('"deny"', limit="", per="client", more='when = { method = "POST", path = "/admin*" }')
        with proxy(rules=only) as found:
            assert outcome(found.port, "/admin/x") == 200
            with Wire(found.port, source=THEM) as wire:
                wire.send(b"POST /ad%6din/x HTTP/1.1\r\nHost: site.test\r\nContent-Length: 0\r\n\r\n")
                assert wire.answer("POST").status == 403, "another spelling of the same path"

    def test_bytes(self, proxy: type[Proxy]) -> None:
        with proxy(rules=rule('"throttle"', "100KiB/min burst 100KiB")) as found:
            found.origin.answers["/big"] = respond(b"b" * 150_000)
            assert outcome(found.port, "/big") == 200
            eventually(lambda: outcome(found.port) == 429, 5, "bytes are charged when the answer ends")
            assert outcome(found.port, source=OTHER) == 200

    @pytest.mark.parametrize(("method", "path"), [("HEAD", "/"), ("GET", "/" + "a" * 2000)])
    def test_bytes_of_heads_count(self, proxy: type[Proxy], method: str, path: str) -> None:
        """Neither requests without a body nor answers without one are free."""
        with proxy(rules=rule('"throttle"', "20KiB/h burst 20KiB")) as found, Wire(found.port, source=THEM) as wire:
            statuses = []
            while len(statuses) < 500 and statuses[-1:] != [429]:
                wire.send(f"{method} {path} HTTP/1.1\r\nHost: site.test\r\n\r\n".encode())
                statuses.append(wire.answer(method).status)
            assert set(statuses[:-1]) == {200}
            assert statuses[-1] == 429
            lines = found.lines(path[:400], len(statuses))
            charged = [int(str(line["http.request.bytes"])) + int(str(line["http.response.bytes"])) for line in lines]
            assert sum(charged[:-2]) < 20480 <= sum(charged[:-1]), "as the log says"
            assert outcome(found.port, source=OTHER) == 200

    def test_concurrent(self, proxy: type[Proxy]) -> None:
        with proxy(rules=rule('"throttle"', "2 concurrent")) as found:

            def slow(exchange: Exchange) -> None:
                time.sleep(1.0)
                respond()(exchange)

            found.origin.answers["/slow"] = slow
            wires = [Wire(found.port, source=THEM) for _ in range(3)]
            for wire in wires:
                wire.send(b"GET /slow HTTP/1.1\r\nHost: site.test\r\n\r\n")
                time.sleep(0.1)
            assert [wire.answer().status for wire in wires] == [200, 200, 429]
            assert outcome(found.port) == 200, "what ended does not count"

    def test_the_origins_time(self, proxy: type[Proxy]) -> None:
        with proxy(rules=rule('"throttle"', "1 origin_s/min burst 1")) as found:

            def slow(exchange: Exchange) -> None:
                time.sleep(1.2)
                respond()(exchange)

            found.origin.answers["/slow"] = slow
            assert outcome(found.port, "/slow") == 200
            eventually(lambda: outcome(found.port) == 429, 5, "the origin's time is charged when the answer ends")


class TestChain:
    def test_the_proven_address_is_the_client(self, proxy: type[Proxy]) -> None:
        rules = rule('"throttle"', "1/min burst 1")
        with (
            proxy(listener='trusted_proxies = ["127.0.3.1"]', rules=rules) as behind,
            Wire(behind.port, source="127.0.3.1") as wire,
        ):
            assert wire.get("/", "X-Forwarded-For: 203.0.113.1\r\n").status == 200
            assert wire.get("/", "X-Forwarded-For: 203.0.113.1\r\n").status == 429
            assert wire.get("/", "X-Forwarded-For: 203.0.113.2\r\n").status == 200
            assert wire.get("/", "X-Forwarded-For: 198.51.100.1, 203.0.113.2\r\n").status == 429

    def test_drop_becomes_deny_and_a_block_binds_after_the_head(self, proxy: type[Proxy]) -> None:
        """The connection carries others as well: it is not the client's to lose."""
        with (
            proxy(listener='trusted_proxies = ["127.0.3.1"]', rules=rule('"drop"')) as behind,
            Wire(behind.port, source="127.0.3.1") as wire,
        ):
            for _ in range(3):
                assert wire.get("/", "X-Forwarded-For: 203.0.113.1\r\n").status == 200
            assert wire.get("/", "X-Forwarded-For: 203.0.113.1\r\n").status == 403
            assert wire.get("/", "X-Forwarded-For: 203.0.113.2\r\n").status == 200


class TestSharedLimits:
    """What is 50/s on one worker is 50/s on two, through a reload and through a worker's death."""

    BURST = 40

    def spend(self, found: Proxy, count: int) -> list[Answer]:
        """Many connections, so that both workers are met."""
        return [fetch(found.port, "/", source=THEM) for _ in range(count)]

    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_burst_is_the_same_on_any_number_of_workers(self, proxy: type[Proxy], workers: int) -> None:
        with proxy(rules=rule('"throttle"', f"1/min burst {self.BURST}"), workers=workers) as found:
            statuses = [answer.status for answer in self.spend(found, self.BURST + 20)]
            assert statuses.count(200) == self.BURST
            assert statuses[: self.BURST] == [200] * self.BURST

    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_rate_is_the_same_on_any_number_of_workers(self, proxy: type[Proxy], workers: int) -> None:
        with proxy(rules=rule('"throttle"', "50/s burst 10"), workers=workers) as found:
            began = time.monotonic()
            statuses = [outcome(found.port) for _ in paced(300, 150)]
            lasted = time.monotonic() - began
            assert abs(statuses.count(200) - (10 + 50 * lasted)) <= 12, f"{statuses.count(200)} in {lasted:.2f} s"

    def test_through_a_reload(self, proxy: type[Proxy]) -> None:
        rules = rule('"throttle"', f"1/min burst {self.BURST}")
        with proxy(rules=rules, workers=2) as found, Wire(found.port, source=OTHER) as open_before:
            assert open_before.get("/").status == 200
            assert [a.status for a in self.spend(found, self.BURST)] == [200] * self.BURST
            found.reload(rules + rule('"deny"', "1000/s burst 1000", name="another"))
            assert {a.status for a in self.spend(found, 20)} == {429}, "a reload keeps every cell"
            assert open_before.get("/").status == 200, "and every connection"

    def test_a_reload_changes_the_rules(self, proxy: type[Proxy]) -> None:
        with proxy(rules=rule('"throttle"', "1000/s burst 1000"), workers=2) as found:
            assert {a.status for a in self.spend(found, 20)} == {200}
            found.reload(rule('"deny"', limit="", per="client", more='when = { path = "/" }', name="all"))
            assert {a.status for a in self.spend(found, 20)} == {403}

    def test_a_block_binds_on_every_worker(self, proxy: type[Proxy]) -> None:
        with proxy(rules=rule('"block 10m"'), workers=2) as found:
            exceed(found.port)
            assert {outcome(found.port) for _ in range(20)} == {"reset"}
            found.reload(rule('"block 10m"'))
            assert {outcome(found.port) for _ in range(20)} == {"reset"}, "blocks outlive a reload"


class TestAreaWide:
    def test_newcomers_are_shed_before_those_from_before(self, proxy: type[Proxy]) -> None:
        """At an area-wide limit those who were well-behaved before keep being served while newcomers are refused."""
        rules = rule('"throttle"', "20/s burst 40", per="area")
        with proxy(rules=rules) as found:
            with Wire(found.port, source="127.0.9.1") as regular:
                for _ in paced(60, 8):  # here before the rush, and calm
                    assert regular.get("/").status == 200
            statuses: dict[str, list[int]] = {"regular": [], "new": []}
            with Wire(found.port, source="127.0.9.1") as regular:
                for i in paced(240, 80):
                    statuses["new"].append(fetch(found.port, "/", source=f"127.0.10.{i % 200 + 1}").status)
                    if i % 20 == 0:
                        statuses["regular"].append(regular.get("/").status)
            assert statuses["regular"].count(200) >= len(statuses["regular"]) - 1, statuses["regular"]
            assert statuses["new"].count(200) < 0.5 * len(statuses["new"])
