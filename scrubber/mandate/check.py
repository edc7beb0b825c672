"""What a mandate's parts mean together, and what it means for a gateway. Reports all errors; repairs nothing.

Owns every rule about meaning: powers, times, keys that may carry a measure, proportion, names, capacities. Holes that
scrubber.config.walk left are skipped, so that one wrong word is one error.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections import Counter
from collections.abc import Sequence

from scrubber.config.gateway import Gateway, area_names
from scrubber.config.walk import Report, nearest
from scrubber.mandate.schema import (
    HELLO_KEYS,
    KEYS,
    MEASURES,
    PATTERNS_MAX,
    POWERS,
    RUNGS_MAX,
    TIMED,
    Mandate,
    Rule,
    Rung,
    When,
)
from scrubber.units import format_duration

# ext/capacity.pxd; tests/unit/test_mandate_schema.py compares.
RULES_MAX = 1024
RULES_AREA_MAX = 64
CHARGES_MAX = 8
PREFIX_SETS_MAX = 64

PREFIX_KEY_V4 = 24  # what the key "prefix" stands for
PREFIX_KEY_V6 = 48
BLOCKABLE = frozenset({("client",), ("prefix",), ("fingerprint",)})
CHARGED_LATER = frozenset({"bytes", "origin_s", "concurrent"})
AVAILABLE = frozenset({"observe", "throttle", "tarpit", "deny", "drop", "block"})
SOURCELESS_MEASURES = frozenset({"observe", "throttle", "challenge", "deny"})


def check_mandate(mandate: Mandate, report: Report, now: datetime.datetime) -> None:
    """Everything that needs no gateway."""
    _check_times(mandate, report, now)
    names = Counter(r.name for r in mandate.rules)
    if len(mandate.rules) > RULES_MAX:
        report.error("rule", f"{len(mandate.rules)} rules", f"at most {RULES_MAX}")
    seen: set[str] = set()
    for i, rule in enumerate(mandate.rules):
        here = f"rule[{i}]"
        if report.lost(here):
            continue
        if names[rule.name] > 1 and rule.name in seen and not report.spoiled(f"{here}.name"):
            hint = "a rule's name keeps its limits over a reload"
            report.error(f"{here}.name", f"{rule.name!r} is the name of an earlier rule", "each name once", hint)
        seen.add(rule.name)
        if rule.name.startswith(POWERS):
            hint = "acts by hand are recorded under the mandate's powers, so that nobody takes them for a rule's"
            report.error(f"{here}.name", f"{POWERS}… stands for the mandate's powers", "another name", hint)
        _check_key(rule, here, report)
        _check_conditions(rule.when, f"{here}.when", report)
        _check_ladder(mandate, rule, here, report)
    for i, text in enumerate(mandate.proportion.never_block):
        if ipaddress.ip_network(text).prefixlen == 0:
            report.warning(f"proportion.never_block[{i}]", f"{text} exempts everybody", "the prefixes of partners")
    for i, name in enumerate(mandate.head.areas):
        if mandate.head.areas.index(name) < i and not report.spoiled(f"mandate.areas[{i}]"):
            report.error(f"mandate.areas[{i}]", f"{name!r} is named twice", "each area once")


def _check_times(mandate: Mandate, report: Report, now: datetime.datetime) -> None:
    head = mandate.head
    begins, ends = (not report.spoiled(f"mandate.{key}") for key in ("not_before", "expires"))
    if begins and ends and head.not_before >= head.expires:
        report.error("mandate.expires", "the mandate ends before it begins", "a time after not_before")
    elif ends and now >= head.expires:
        hint = "renew it with a later date and a higher serial, or take it out of the gateway file"
        report.error("mandate.expires", f"the mandate expired on {head.expires.isoformat()}", "a time to come", hint)
    elif begins and now < head.not_before:
        hint = "load it then; until then leave it out of the gateway file"
        since = head.not_before.isoformat()
        report.error("mandate.not_before", f"the mandate is not valid before {since}", "a time gone by", hint)


def _check_key(rule: Rule, here: str, report: Report) -> None:
    unlimited = rule.limit is None and not report.spoiled(f"{here}.limit")
    if not rule.per and not report.spoiled(f"{here}.per"):
        if not unlimited:
            report.error(
                f"{here}.per", "missing field 'per': whose limit is it?", 'a key as "client", "account+client"'
            )
        elif rule.when.link_load_ppm is None and not report.spoiled(f"{here}.when.link_load"):
            report.error(here, "missing fields 'per' and 'limit'", 'both, as per = "client", limit = "50/s"')
        return
    if rule.per == ("account",):
        hint = 'write per = "account+client": an account alone would lock out its owner'
        report.error(f"{here}.per", "an account that nothing has verified is never a key alone", "a pair", hint)
    if unlimited and rule.when == When() and not report.spoiled(f"{here}.when"):
        report.error(here, "a rule with neither limit nor condition meets everybody", "a limit, or a condition")
    if rule.limit is not None and rule.limit.unit == "connections" and "path" in rule.per:
        report.error(f"{here}.per", "a connection has no path", "one of: " + ", ".join(k for k in KEYS if k != "path"))
    if rule.limit is not None and rule.limit.unit in ("handshakes", "abuses"):
        _check_connection(rule, here, report)
    if unlimited and rule.per and not rule.names_source:
        report.error(f"{here}.limit", "a rule without a limit needs a key that says who", 'per = "client", or a limit')


def _check_connection(rule: Rule, here: str, report: Report) -> None:
    """What a rule about handshakes or abuses may ask: it is about a connection, not about a request."""
    for key in rule.per:
        if key not in HELLO_KEYS:
            report.error(f"{here}.per", f"a connection has no {key}", "one of: " + ", ".join(sorted(HELLO_KEYS)))
    if rule.when.needs_request:
        hint = "it is about no request"
        what = rule.limit.unit if rule.limit is not None else "connections"
        report.error(f"{here}.when", f"a rule about {what} knows no more", "client, known, ja3, ja4", hint)


def _check_conditions(when: When, here: str, report: Report) -> None:
    for field in ("path", "host", "query", "fingerprint", "http2", "ja3", "ja4"):
        if len(getattr(when, field)) > PATTERNS_MAX:
            report.error(f"{here}.{field}", "too many patterns", f"at most {PATTERNS_MAX}")
    for name, test in when.header.items():
        token = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
        if not token or len(name) > 128:
            report.error(f"{here}.header", f"{name!r} is not a header name", 'a name as "user-agent"')
        if len(test.patterns) > PATTERNS_MAX:
            report.error(f"{here}.header.{name}", "too many patterns", f"at most {PATTERNS_MAX}")


def _check_ladder(mandate: Mandate, rule: Rule, here: str, report: Report) -> None:
    if len(rule.then) > RUNGS_MAX:
        report.error(f"{here}.then", f"{len(rule.then)} rungs", f"at most {RUNGS_MAX}")
    severest = -1
    for k, rung in enumerate(rule.then):
        place = f"{here}.then[{k}]"
        if report.spoiled(place):
            continue
        _check_rung(mandate, rule, rung, place, report)
        _check_aim(rule, rung.measure, here, place, report)
        rank = MEASURES.index(rung.measure)
        if rank < severest:
            report.warning(place, f"{rung.measure!r} is milder than the rung before", "measures in order of severity")
        severest = max(severest, rank)
    measures = {rung.measure for rung in rule.then}
    if rule.then and not measures & {*AVAILABLE, "blackhole"}:
        report.warning(
            f"{here}.then", "no measure of this ladder is available here", "one that is", "the rule does nothing"
        )


def _check_rung(mandate: Mandate, rule: Rule, rung: Rung, place: str, report: Report) -> None:
    measure = rung.measure
    head, proportion = mandate.head, mandate.proportion
    if measure not in head.powers and not report.spoiled("mandate.powers"):
        hint = f'add "{measure}" to powers, or leave this rung out'
        report.error(place, f"the mandate gives no power to {measure}", "one of: " + ", ".join(head.powers), hint)
    if measure not in {*AVAILABLE, "blackhole"}:
        report.warning(place, f"{measure!r} is not available here: the ladder passes over it", "")
    if rule.per and not rule.names_source and measure not in SOURCELESS_MEASURES:
        hint = f'the key "{"+".join(rule.per)}" does not say who: {measure} would meet everybody'
        expected = "one of: " + ", ".join(sorted(SOURCELESS_MEASURES))
        report.error(place, f"{measure!r} needs a key that says who", expected, hint)
    elif rule.per and measure == "block":
        _check_block(mandate, rule, rung, place, report)
    too_long = measure in TIMED and rung.ttl_ns > proportion.block_ttl_max_ns
    if too_long and not report.spoiled("proportion.block_ttl_max"):
        longest = format_duration(proportion.block_ttl_max_ns)
        report.error(place, f"{format_duration(rung.ttl_ns)} exceeds proportion.block_ttl_max", f"at most {longest}")


def _check_aim(rule: Rule, measure: str, here: str, place: str, report: Report) -> None:
    """The link's load is answered by blackholes, everything else by other measures."""
    by_load = rule.when.link_load_ppm is not None
    if measure == "blackhole" and (rule.per or not (by_load or report.spoiled(f"{here}.when.link_load"))):
        hint = 'when = { link_load = ">= 80%" }, without per and limit'
        report.error(place, "a blackhole is never the answer to one client's rate", "a rule on the link's load", hint)
    if measure != "blackhole" and by_load and not rule.per and not report.spoiled(f"{here}.per"):
        report.error(place, f"{measure!r} needs a key", "per and limit", "without them only a blackhole can follow")


def _check_block(mandate: Mandate, rule: Rule, rung: Rung, place: str, report: Report) -> None:
    blockable = rule.per in BLOCKABLE or "client" in rule.per
    if not blockable:
        hint = "a block is aimed at a client, a prefix or a fingerprint; of a pair, at its client"
        report.error(place, f'"{"+".join(rule.per)}" names no source that can be blocked', "a key with client", hint)
    bounds = mandate.proportion
    too_wide = bounds.prefix_v4_widest > PREFIX_KEY_V4 or bounds.prefix_v6_widest > PREFIX_KEY_V6
    if rule.per == ("prefix",) and too_wide:
        hint = f"the key prefix is a /{PREFIX_KEY_V4} or a /{PREFIX_KEY_V6}"
        report.error(place, "blocks prefixes wider than proportion allows", "a narrower key, or wider bounds", hint)


def check_together(gateway: Gateway, gateway_report: Report, mandates: Sequence[tuple[Mandate, Report]]) -> None:
    """What needs the gateway: areas, signatures, capacities. Problems go to the mandate's own report."""
    names = area_names(gateway, gateway_report)
    ids: dict[str, str] = {}
    for mandate, report in mandates:
        if mandate.id in ids and not report.spoiled("mandate.id"):
            report.error("mandate.id", f"{mandate.id!r} is also the id of {ids[mandate.id]}", "each mandate once")
        ids.setdefault(mandate.id, report.file)
        if not gateway_report.spoiled("allow_unsigned"):
            _check_signature(gateway, report)
        if names is not None:
            _check_areas(names, mandate, report)
        _check_accounts(gateway, gateway_report, mandate, report)
        _check_blackholes(gateway, gateway_report, mandate, report)
        if not mandate.rules and not report.spoiled("rule"):
            hint = "add a [[rule]]; without one, only blocks by hand have a clause"
            report.warning("rule", f"mandate {mandate.id!r} has no rules: nobody is limited by it", "rules", hint)
    if names is not None and mandates and not gateway_report.spoiled("mandates"):
        _check_covered(gateway, gateway_report, mandates)
    _check_capacities(gateway, mandates)


def _check_covered(gateway: Gateway, report: Report, mandates: Sequence[tuple[Mandate, Report]]) -> None:
    if any(own.spoiled("mandate.areas") for _, own in mandates):
        return
    covered = {name for mandate, _ in mandates for name in mandate.head.areas}
    for i, area in enumerate(gateway.areas):
        if area.name not in covered:
            hint = f'name it in a mandate: areas = ["{area.name}"]'
            message = f"no mandate covers area {area.name!r}: nothing may be done to who attacks it"
            report.warning(f"area[{i}].name", message, "a mandate that names it", hint)


def _check_signature(gateway: Gateway, report: Report) -> None:
    if not gateway.allow_unsigned:
        hint = "set allow_unsigned = true in the gateway file to accept it all the same"
        report.error("", "the mandate is not signed", "a signed mandate", hint)


def _check_areas(names: Sequence[str], mandate: Mandate, report: Report) -> None:
    for i, name in enumerate(mandate.head.areas):
        if name not in names and not report.spoiled(f"mandate.areas[{i}]"):
            expected = "one of: " + ", ".join(names)
            report.error(f"mandate.areas[{i}]", f"the gateway has no area {name!r}", expected, nearest(name, names))


def _check_accounts(gateway: Gateway, gateway_report: Report, mandate: Mandate, report: Report) -> None:
    read = [area for i, area in enumerate(gateway.areas) if not gateway_report.spoiled(f"area[{i}].account")]
    kinds = {area.name: area.account.kind for area in read}
    for i, rule in enumerate(mandate.rules):
        if "account" not in rule.per and rule.when.account is None:
            continue
        for name in mandate.head.areas:
            if kinds.get(name) == "none":
                hint = f'add account = "cookie:NAME" (or header:, bearer, basic) to area {name!r}'
                message = f"area {name!r} knows no accounts: rule {rule.name!r} never applies there"
                report.warning(f"rule[{i}]", message, "", hint)


def _check_blackholes(gateway: Gateway, gateway_report: Report, mandate: Mandate, report: Report) -> None:
    """Rules on the link's load: whether the gateway knows its load, and whom to ask."""
    if gateway_report.spoiled("enforcer"):
        return
    upstream = gateway.enforcer.upstream if gateway.enforcer is not None else None
    for i, rule in enumerate(mandate.rules):
        if rule.when.link_load_ppm is None or rule.per or report.lost(f"rule[{i}]") or not rule.name:
            continue
        message, hint = "", ""
        if upstream is None:
            message, hint = "nobody upstream is asked for anything", "[enforcer.upstream] in the gateway file"
        elif not upstream.link_rate:
            message, hint = "what the line carries is not known", 'link_rate = "125MB/s" in [enforcer.upstream]'
        elif upstream.source_community is None:
            message = "the provider drops nothing by its source, and a victim takes an order by hand"
            hint = "source_community in [enforcer.upstream], where the provider has one"
        if message:
            report.warning(f"rule[{i}]", f"rule {rule.name!r} never does anything here: {message}", "", hint)


def _check_capacities(gateway: Gateway, mandates: Sequence[tuple[Mandate, Report]]) -> None:
    for area in gateway.areas:
        covering = [(m, report) for m, report in mandates if area.name in m.head.areas]
        rules = [rule for m, _ in covering for rule in m.rules]
        later = [rule for rule in rules if rule.limit is not None and rule.limit.unit in CHARGED_LATER]
        for count, most, what in (
            (len(rules), RULES_AREA_MAX, "rules"),
            (len(later), CHARGES_MAX, "limits on bytes, concurrent requests or the origin's time"),
        ):
            if count > most:
                message = f"area {area.name!r} has {count} {what}"
                covering[-1][1].error("rule", message, f"at most {most} in all its mandates")
    if not mandates:
        return
    if sum(len(m.rules) for m, _ in mandates) > RULES_MAX:
        mandates[-1][1].error("rule", "too many rules in all mandates together", f"at most {RULES_MAX}")
    sets = {rule.when.client for m, _ in mandates for rule in m.rules if rule.when.client}
    sets |= {tuple(li.trusted_proxies) for li in gateway.listeners if li.trusted_proxies}
    if len(sets) + 1 > PREFIX_SETS_MAX:
        hint = "rules that name the same prefixes share a list"
        mandates[-1][1].error("rule", f"{len(sets)} lists of prefixes", f"at most {PREFIX_SETS_MAX - 1}", hint)
