"""What the gateway file says of TLS: every wrong word is one problem with a hint; certificates are looked at."""

from __future__ import annotations

import datetime
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509

from scrubber import _native
from scrubber.cli import main
from scrubber.config import tls
from scrubber.config.gateway import Gateway, load_gateway
from scrubber.control import acts
from scrubber.errors import Problem
from scrubber.server.tls_upkeep import TICKET_KEY_NS, TlsUpkeep, expiries
from scrubber.server.users import tls_files
from tests.e2e.certificates import authority, signed, staple
from tests.unit.files import MINIMAL_GATEWAY
from tests.unit.regions import make_memory

SITE = signed("site.test")
SECURE = MINIMAL_GATEWAY.replace('127.0.0.1:0"', '127.0.0.1:0"\ntls = true')


def load(folder: Path, area: str = "", listener: str = "", origin: str = "") -> tuple[Gateway | None, list[Problem]]:
    """A gateway with [area.tls]; its certificate, an authority and a key of somebody else's lie beside it."""
    SITE.write(folder, "site")
    signed("other.test").write(folder, "other")
    (folder / "ca.pem").write_bytes(authority().pem)
    (folder / "site.ocsp").write_bytes(staple(SITE))
    text = SECURE.replace("tls = true", listener) if listener else SECURE
    if origin:
        text = text.replace('["127.0.0.1:8000"]', f'{{ address = "127.0.0.1:8000", tls = {origin} }}')
    (folder / "gateway.toml").write_text(f"{text}\n{area}", encoding="utf-8")
    return load_gateway(folder / "gateway.toml")


GOOD = '[area.tls]\ncertificates = { chain = "site.pem", key = "site.key", ocsp = "site.ocsp" }\n'


def test_what_was_read(tmp_path: Path) -> None:
    gateway, problems = load(tmp_path, GOOD)
    assert problems == []
    assert gateway is not None
    area = gateway.areas[0].tls
    assert area is not None
    (found,) = area.certificates
    assert found.names == ("site.test",)
    assert found.expires == SITE.certificate.not_valid_after_utc
    assert x509.load_pem_x509_certificate(found.chain_pem) == SITE.certificate
    assert found.staple == staple_of(tmp_path)
    assert expiries(gateway) == {"site": SITE.certificate.not_valid_after_utc.timestamp()}
    names = {Path(file).name for file in tls_files(gateway)}
    assert names == {"site.pem", "site.key", "site.ocsp"}


def staple_of(folder: Path) -> bytes:
    return (folder / "site.ocsp").read_bytes()


@pytest.mark.parametrize(
    ("area", "path", "message", "hint"),
    [
        ("", "area", "a listener speaks TLS, and no area has a certificate", "dev-cert"),
        (GOOD.replace("site.pem", "none.pem"), "area[0].tls.certificates.chain", "No such file", "looked for in"),
        (GOOD.replace("site.pem", "site.key"), "area[0].tls.certificates.chain", "no certificate in it", "first"),
        (GOOD.replace("site.key", "site.pem"), "area[0].tls.certificates.key", "no private key", ""),
        (GOOD.replace("site.key", "other.key"), "area[0].tls.certificates.key", "is not the key of", "compare"),
        (GOOD.replace("site.ocsp", "ca.pem"), "area[0].tls.certificates.ocsp", "is no OCSP response", ""),
        (GOOD + 'client_certificate = "required"', "area[0].tls.authorities", "nobody may vouch", ""),
        (GOOD + 'client_certificate = "maybe"', "area[0].tls.client_certificate", "'maybe' is not known here", ""),
        (GOOD + 'redirect = "a b"', "area[0].tls.redirect", "is nowhere to send to", ""),
        (GOOD + 'redirect = "*.site.test"', "area[0].tls.redirect", "is many hosts", ""),
        (GOOD + 'redirect = ":0"', "area[0].tls.redirect", "is nowhere to send to", ""),
        ("[area.tls]\ncertificates = []", "area[0].tls.certificates", "an empty list", ""),
    ],
)
def test_errors(tmp_path: Path, area: str, path: str, message: str, hint: str) -> None:
    gateway, problems = load(tmp_path, area)
    assert gateway is None
    (problem,) = [each for each in problems if each.severity == "error"]
    assert problem.path == path
    assert message in problem.message
    assert hint in problem.hint
    assert "PRIVATE KEY" not in str(problem)


@pytest.mark.parametrize(
    ("area", "listener", "path", "message"),
    [
        (GOOD, "tls = false", "area[0].tls", "no listener speaks TLS"),
        ('hosts = ["site.test", "more.test"]\n' + GOOD, "", "area[0].tls", "no certificate answers for more.test"),
        (GOOD + 'authorities = "ca.pem"', "", "area[0].tls.authorities", "no client is asked"),
    ],
)
def test_warnings(tmp_path: Path, area: str, listener: str, path: str, message: str) -> None:
    gateway, problems = load(tmp_path, area, listener)
    assert gateway is not None
    (problem,) = problems
    assert (problem.severity, problem.path) == ("warning", path)
    assert message in problem.message


def test_an_origin_s_tls(tmp_path: Path) -> None:
    gateway, problems = load(tmp_path, GOOD, origin='{ authorities = "ca.pem" }')
    assert problems == []
    assert gateway is not None
    origin = gateway.areas[0].origins[0].tls
    assert origin is not None
    assert x509.load_pem_x509_certificate(origin.authorities_pem) == authority().certificate
    off, _ = load(tmp_path, GOOD, origin="false")
    assert off is not None
    assert off.areas[0].origins[0].tls is None
    _, problems = load(tmp_path, GOOD, origin='{ authorities = "site.key" }')
    assert [each.path for each in problems] == ["area[0].origins.tls.authorities"]


@pytest.mark.parametrize(
    ("value", "read"),
    [(True, ":443"), (False, ""), (":8443", ":8443"), ("a.test", "a.test:443"), ("A.test:8443", "a.test:8443"),
     ("[2001:db8::1]", "[2001:db8::1]:443"), ("[2001:db8::1]:8443", "[2001:db8::1]:8443")],
)  # fmt: skip
def test_where_http_is_sent(value: object, read: str) -> None:
    assert tls.REDIRECT.parse(value) == read


@pytest.mark.parametrize(
    ("names", "host", "held"),
    [
        (["a.test"], "a.test", True),
        (["*.a.test"], "b.a.test", True),
        (["*.a.test"], "a.test", False),
        (["*.a.test"], "c.b.a.test", False),
        (["*.a.test"], "*.a.test", True),
        (["b.a.test"], "*.a.test", False),
    ],
)
def test_which_hosts_a_certificate_covers(names: list[str], host: str, held: bool) -> None:
    assert tls.covers(names, host) == held


def test_expiry_is_said_fourteen_days_ahead() -> None:
    now = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)
    days = datetime.timedelta(days=1)
    assert tls.expiry_said(now + 15 * days, now) == ""
    assert tls.expiry_said(now + 13 * days, now) == "expires in 13 days, on 2026-06-14"
    assert tls.expiry_said(now - days, now) == "expired on 2026-05-31: clients refuse it"


def test_upkeep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticket keys are renewed when they are old; an expiry is said once a day."""
    (memory,) = make_memory()
    signed("soon.test", days=3).write(tmp_path, "soon")
    gateway, _ = load(tmp_path, GOOD.replace("site", "soon").replace(', ocsp = "soon.ocsp"', ""))
    assert gateway is not None
    said: list[dict[str, object]] = []
    upkeep = TlsUpkeep(memory, said.append)
    born = memory.tickets_born_ns
    assert born > 0
    upkeep.look(gateway)
    upkeep.look(gateway)
    assert [each["event.action"] for each in said] == ["certificate_expires"]
    assert "soon.pem of area site expires in 2 days" in str(said[0]["message"])
    assert memory.tickets_born_ns == born
    monkeypatch.setattr("time.monotonic_ns", lambda: born + TICKET_KEY_NS)
    upkeep.look(gateway)
    assert memory.tickets_born_ns == born + TICKET_KEY_NS
    upkeep.said = dict.fromkeys(upkeep.said, datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    upkeep.look(gateway)
    assert len(said) == 2
    assert set(said[0]) == set(acts.made("certificate_expires", ""))


def test_a_new_memory_has_a_ticket_key_of_its_own() -> None:
    keys = set()
    for _ in range(3):
        (memory,) = make_memory()
        memory.renew_tickets(5)
        assert memory.tickets_born_ns == 5
        keys.add(_native.probe_tickets(memory))
    assert len(keys) == 3


class TestDevCert:
    """`scrubber dev-cert`."""

    def test_it_writes_what_configs_tls_toml_wants(self, tmp_path: Path) -> None:
        done = CliRunner().invoke(main, ["dev-cert", str(tmp_path)])
        assert done.exit_code == 0, done.output
        found = x509.load_pem_x509_certificate((tmp_path / "dev.pem").read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["localhost"]
        assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
        assert stat.S_IMODE((tmp_path / "dev.key").stat().st_mode) == 0o600
        text = GOOD.replace('site.pem", key = "site.key", ocsp = "site.ocsp"', 'dev.pem", key = "dev.key"')
        gateway, problems = load(tmp_path, text)
        assert gateway is not None
        assert problems == []

    def test_it_replaces_nothing_unasked(self, tmp_path: Path) -> None:
        (tmp_path / "dev.key").write_text("mine")
        refused = CliRunner().invoke(main, ["dev-cert", str(tmp_path)])
        assert refused.exit_code == 1
        assert (tmp_path / "dev.key").read_text() == "mine"
        assert not (tmp_path / "dev.pem").exists()
        done = CliRunner().invoke(main, ["dev-cert", str(tmp_path), "--force", "--rsa", "--name", "a.test"])
        assert done.exit_code == 0, done.output
        assert b"PRIVATE KEY" in (tmp_path / "dev.key").read_bytes()
