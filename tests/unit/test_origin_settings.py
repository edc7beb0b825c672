"""Origins as the gateway file has them: names, the servers that resolve them, what names become."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from scrubber.config.dns import SERVER
from scrubber.config.gateway import load_gateway
from scrubber.config.network import Endpoint, parse_origin_endpoint
from scrubber.errors import ValueRefused
from scrubber.mandate.resolved import ADDRESSES_MAX, names_of, resolved
from scrubber.mandate.slots import assign_slots
from scrubber.server.origins import labels_of
from scrubber.server.resolve import in_hosts
from tests.unit.files import MINIMAL_GATEWAY, write


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("app.internal:8080", Endpoint("name", "app.internal", 8080)),
        ("App.Internal.:80", Endpoint("name", "app.internal", 80)),
        ("localhost:1", Endpoint("name", "localhost", 1)),
        ("127.0.0.1:1", Endpoint("inet", "127.0.0.1", 1)),
        ("unix:/run/a.sock", Endpoint("unix", "/run/a.sock", 0)),
    ],
)
def test_an_origin_is_an_address_or_a_name(text: str, endpoint: Endpoint) -> None:
    assert parse_origin_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "app.internal",
        "app.internal:0",
        "app.internal:65536",
        "-a.b:80",
        "a..b:80",
        "1.2.3:80",
        "300.1.1.1:80",
        "*.a:80",
        f"{'a' * 64}:80",
        f"{'a.' * 127}a:80",
        "a b:80",
        "http://a:80",
        ":80",
        "",
    ],
)
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ValueRefused):
        parse_origin_endpoint(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("192.0.2.53", "192.0.2.53:53"),
        ("192.0.2.53:5353", "192.0.2.53:5353"),
        ("2001:db8::53", "[2001:db8::53]:53"),
        ("[2001:db8::53]", "[2001:db8::53]:53"),
        ("[2001:db8::53]:54", "[2001:db8::53]:54"),
    ],
)
def test_a_server_has_port_53_unless_it_says_otherwise(text: str, shown: str) -> None:
    assert str(SERVER.parse(text)) == shown


@pytest.mark.parametrize("value", ["dns.example", "dns.example:53", "192.0.2.53:0", "", 53])
def test_a_server_is_an_address(value: object) -> None:
    with pytest.raises(ValueRefused):
        SERVER.parse(value)


def test_names_become_their_addresses(tmp_path: Path) -> None:
    text = MINIMAL_GATEWAY.replace(
        'origins = ["127.0.0.1:8000"]',
        'origins = ["127.0.0.1:80", { address = "app.test:80", weight = 3 }, "late.test:80", "twin.test:80"]',
    )
    gateway, problems = load_gateway(write(tmp_path, text))
    assert gateway is not None, problems
    assert names_of(gateway) == ("app.test", "late.test", "twin.test")
    answers = {"app.test": ("127.0.0.1", "127.0.0.2", "::1"), "twin.test": ("127.0.0.2", "127.0.0.9")}
    found = resolved(gateway, answers).areas[0].origins
    assert [(str(o.address), o.weight, o.via) for o in found] == [
        ("127.0.0.1:80", 1, ""),
        ("127.0.0.2:80", 3, "app.test:80"),
        ("[::1]:80", 3, "app.test:80"),
        ("127.0.0.9:80", 1, "twin.test:80"),
    ]
    assert resolved(gateway, {}).areas[0].origins == gateway.areas[0].origins[:1]


def test_how_many_addresses_a_name_has_is_bounded(tmp_path: Path) -> None:
    text = MINIMAL_GATEWAY.replace('"127.0.0.1:8000"', ", ".join(f'"n{i}.test:80"' for i in range(10)))
    gateway, problems = load_gateway(write(tmp_path, text))
    assert gateway is not None, problems
    many = {f"n{i}.test": tuple(f"10.{i}.0.{k}" for k in range(40)) for i in range(10)}
    (area,) = resolved(gateway, many).areas
    assert len(area.origins) == 64
    assert sum(o.via == "n0.test:80" for o in area.origins) == ADDRESSES_MAX
    pool = msgspec.structs.replace(gateway.areas[0], name="x")
    several = msgspec.structs.replace(
        gateway, areas=tuple(msgspec.structs.replace(pool, name=f"x{i}") for i in range(40))
    )
    assert len(assign_slots(resolved(several, many)).origins) == 1024


def test_metrics_call_origins_by_name_or_place(tmp_path: Path) -> None:
    text = MINIMAL_GATEWAY.replace('"127.0.0.1:8000"', '"a.test:80", "127.0.0.1:8000", "unix:/run/b.sock", "c.test:80"')
    gateway, problems = load_gateway(write(tmp_path, text))
    assert gateway is not None, problems
    (written,) = gateway.areas

    def labels(**answers: tuple[str, ...]) -> list[str]:
        (area,) = resolved(gateway, {f"{name}.test": found for name, found in answers.items()}).areas
        return labels_of(area.origins, written.origins)

    assert labels(a=("10.0.0.1", "10.0.0.2"), c=("::1",)) == ["a.test:80", "a.test:80#2", "1", "2", "c.test:80"]
    assert labels(a=("10.0.0.7",)) == ["a.test:80", "1", "2"]
    assert labels() == ["1", "2"]


def test_the_hosts_file_is_read_as_others_read_it(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text(
        "127.0.0.5 a.test A2.test # b.test\n::1\ta.test\nnonsense a.test\n127.0.0.1 a.test\n#1.1.1.1 a.test\n"
    )
    assert in_hosts("a.test", file) == ("127.0.0.1", "127.0.0.5", "::1")
    assert in_hosts("a2.test", file) == ("127.0.0.5",)
    assert in_hosts("b.test", file) == in_hosts("a.test", tmp_path / "none") == ()
