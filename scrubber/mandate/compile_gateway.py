"""The gateway file's side of an image: areas, their pools and origins, hosts, listeners.

Owns the meaning of the gateway file in the core's terms. Which rules belong to an area or a listener is asked of the
caller: mandates are compile.py's business. Caps of the gateway file are divided by workers here.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from scrubber.config.cache import Cache
from scrubber.config.gateway import Area, Gateway
from scrubber.config.listener import Listener
from scrubber.config.network import Endpoint
from scrubber.config.origins import Origin, PoolSettings
from scrubber.config.tls import Certificate, ListenerTls
from scrubber.mandate import layout
from scrubber.mandate.bounds import area_bounds
from scrubber.mandate.compile_routes import RouteWriter
from scrubber.mandate.image import Image, PrefixSets, area_mask
from scrubber.mandate.schema import Mandate
from scrubber.mandate.slots import Slots, origin_key, origin_name, pool_name, pools_of

RuleSpan = tuple[int, int]
PROXY_FLAGS = {"off": 0, "v1": layout.ORIGIN_PROXY_V1, "v2": layout.ORIGIN_PROXY_V2}
RETRIES_LEAST = 10  # in 10 s: small sites may try again too


@dataclass(frozen=True, kw_only=True)
class GatewayWriter:
    """Writes the sections areas, pools, origins, hosts and listeners of one image."""

    gateway: Gateway
    mandates: Sequence[Mandate]
    area_ids: Mapping[str, int]
    slots: Slots
    image: Image
    prefixes: PrefixSets
    rules_of_area: Callable[[str, bool], RuleSpan]  # name, about connections
    hello_rules_of_area: Callable[[str], RuleSpan]
    rules_of_listener: Callable[[Listener], RuleSpan]
    patterns: list[str] = field(default_factory=list)  # of routes, in their order

    def write(self) -> None:
        """All of them; the rules that they point to are written already."""
        for area in self.gateway.areas:
            self.image.add("areas", self._area(area))
        self._hosts()
        for index, listener in enumerate(self.slots.listeners.listeners):
            self.image.add("listeners", self._listener(index, listener))

    def _hosts(self) -> None:
        named = [(h.removeprefix("*"), i) for i, area in enumerate(self.gateway.areas) for h in area.hosts]
        for name, index in sorted(named, key=lambda n: (len(n[0]), n[0])):
            self.image.add("hosts", layout.HOST.pack(*self.image.text(name), index, 0))

    def _area(self, area: Area) -> bytes:
        limits, workers = area.limits, self.gateway.workers
        first, _ = self.image.span("pools", [self._pool(area.name, *each) for each in pools_of(area)])
        bounds = area_bounds(area.name, self.mandates)
        writer = RouteWriter(
            area=area,
            pools={name: first + i for i, (name, *_) in enumerate(pools_of(area))},
            image=self.image,
            prefixes=self.prefixes,
            patterns=self.patterns,
        )
        routes = writer.write()
        https_page = writer.to_https(area.tls.redirect) if area.tls is not None and area.tls.redirect else 0
        return layout.AREA.pack(
            self.area_ids[area.name],
            self._flags(area),
            *self.image.text(area.name),
            *self.rules_of_area(area.name, False),
            *self.rules_of_area(area.name, True),
            first,
            0,
            limits.line_bytes_max,
            limits.head_bytes_max,
            limits.headers_max,
            layout.ACCOUNTS[area.account.kind],
            *self.image.text(area.account.name),
            limits.body_bytes_max,
            limits.head_timeout_ns,
            limits.idle_timeout_ns,
            limits.connect_timeout_ns,
            limits.read_timeout_ns,
            limits.write_timeout_ns,
            limits.body_grace_ns,
            limits.body_bytes_per_s_min,
            limits.tarpit_time_ns,
            share_of_worker(limits.origin_connections_max, workers),
            limits.origin_wait_max // workers,
            limits.origin_wait_ns,
            limits.origin_idle_ns,
            bounds.clients_share_max_ppm,
            bounds.blocks_max,
            bounds.block_ttl_max_ns,
            *self._tunnel(area),
            *self.image.text(self.gateway.via if area.via is None else area.via),
            *self.image.text("" if self._server(area) in ("keep", "hide") else self._server(area)),
            limits.ranges_max,
            0,
            *cache_words(area.cache, workers),
            *routes,
            https_page,
            *self._tls(area),
        )

    def _tls(self, area: Area) -> tuple[int, ...]:
        """What an AreaSpec says of TLS."""
        tls, asked = area.tls, self.hello_rules_of_area(area.name)
        if tls is None:
            return (0, 0, 0, 0, *asked, 0)
        return (
            *self.image.span("certificates", [self._certificate(each) for each in tls.certificates]),
            *self.image.data(tls.authorities_pem),
            *asked,
            layout.CLIENT_CERTIFICATES[tls.client_certificate],
        )

    def _certificate(self, found: Certificate) -> bytes:
        data = self.image.data
        return layout.CERTIFICATE.pack(*data(found.chain_pem), *data(found.key_pem), *data(found.staple))

    def _tunnel(self, area: Area) -> tuple[int, ...]:
        """TunnelSpec: protocols side by side, each with a comma behind it."""
        tunnel = area.tunnel
        return (
            *self.image.text("".join(f"{protocol}," for protocol in area.upgrade)),
            tunnel.bytes_max,
            tunnel.idle_timeout_ns,
            tunnel.message_timeout_ns,
            tunnel.lifetime_max_ns,
            tunnel.client_max,
            tunnel.total_max,
        )

    def _server(self, area: Area) -> str:
        return self.gateway.server if area.server is None else area.server

    def _flags(self, area: Area) -> int:
        via_response = self.gateway.via_response if area.via_response is None else area.via_response
        return (
            layout.AREA_RATELIMIT_FIELDS * area.ratelimit_fields
            | layout.AREA_HOST_KEEP * area.keep_host
            | layout.AREA_SPLICE * area.splice
            | layout.AREA_VIA_RESPONSE * via_response
            | layout.AREA_SERVER_HIDE * (self._server(area) == "hide")
        )

    def _pool(self, area: str, name: str, origins: Sequence[Origin], settings: PoolSettings) -> bytes:
        members = [self._origin(origin_name(area, name, origin), origin) for origin in origins]
        kind, _, header = settings.balance.partition(":header:")
        return layout.POOL.pack(
            self.slots.pools[pool_name(area, name)],
            layout.BALANCES["hash:header" if header else kind],
            *self.image.text(name),
            *self.image.span("origins", members),
            *self.image.text(header),
            settings.slow_start_ns,
            settings.eject_time_ns,
            settings.eject_time_max_ns,
            settings.eject_after,
            settings.retry_budget_ppm,
            share_of_worker(RETRIES_LEAST, self.gateway.workers),
        )

    def _origin(self, name: str, origin: Origin) -> bytes:
        endpoint = origin.address
        family, sockaddr = sockaddr_of(endpoint)
        share = share_of_worker(origin.connections_max, self.gateway.workers) if origin.connections_max else 0
        own = "localhost" if endpoint.family == "unix" else str(endpoint)
        host = self.image.text(origin.host or origin.via or own)
        index = self.slots.origins[name]
        flags = PROXY_FLAGS[origin.proxy_protocol] | layout.ORIGIN_BACKUP * origin.backup
        flags |= layout.ORIGIN_H2C * (origin.protocol == "h2c")
        where = (index, family, len(sockaddr), share, sockaddr)
        if origin.tls is None:
            return layout.ORIGIN.pack(*where, *host, origin_key(name), origin.weight, flags, 0, 0, 0, 0, 0)
        tls = origin.tls
        flags |= layout.ORIGIN_TLS | layout.ORIGIN_TLS_UNVERIFIED * (not tls.verify)
        ours = self.image.add("certificates", self._certificate(tls.certificate)) + 1 if tls.certificate else 0
        reached_by = (origin.via.rpartition(":")[0] or endpoint.address) if endpoint.family != "unix" else "localhost"
        says = (
            *self.image.data(tls.authorities_pem),
            *self.image.text((tls.name or origin.host or reached_by).strip("[]")),
            ours,
        )
        return layout.ORIGIN.pack(*where, *host, origin_key(name), origin.weight, flags, *says)

    def _listener(self, index: int, listener: Listener) -> bytes:
        named = {area.name: i for i, area in enumerate(self.gateway.areas)}
        tls = listener.tls if listener.tls is not None and listener.tls.on else None
        return layout.LISTENER.pack(
            index,
            self.prefixes.add(listener.trusted_proxies),
            named.get(listener.default, layout.NONE),
            listener.address.port,
            *area_mask(self.area_ids[name] for name in listener.areas),
            *self.rules_of_listener(listener),
            int(tls is not None),
            self.prefixes.add(listener.proxy_protocol),
            tls.handshake_timeout_ns if tls else 0,
            listener_flags(tls, listener.http2),
        )


def listener_flags(tls: ListenerTls | None, http2: bool | None) -> int:
    """LISTENER_*."""
    if tls is None:
        return layout.LISTENER_HTTP2 * bool(http2)
    strict, only_13 = tls.unknown_names == "refuse", tls.min_version == "1.3"
    flags = layout.LISTENER_TLS | layout.LISTENER_TLS_STRICT * strict | layout.LISTENER_TLS_13 * only_13
    return flags | layout.LISTENER_HTTP2 * (http2 is not False)


def cache_words(cache: Cache, workers: int) -> tuple[int, ...]:
    """The fields of a CacheSpec."""
    flags = (
        layout.CACHE_ON * cache.enabled
        | layout.CACHE_HONOUR_NO_CACHE * (cache.client_no_cache == "honour")
        | layout.CACHE_STATUS_FIELD * cache.cache_status
    )
    times = (cache.ttl_max_ns, cache.ttl_default_ns, cache.stale_max_ns, cache.wait_ns)
    return (flags, cache.object_bytes_max, *times, cache.wait_max // workers)


def share_of_worker(whole: int, workers: int) -> int:
    """A worker's part of what the gateway may have in all; never nothing."""
    return max(1, whole // workers)


def sockaddr_of(endpoint: Endpoint) -> tuple[int, bytes]:
    """(AF_*, struct sockaddr_in, sockaddr_in6 or sockaddr_un) as Linux has them."""
    if endpoint.family == "unix":
        return int(socket.AF_UNIX), struct.pack("=H", socket.AF_UNIX) + endpoint.address.encode() + b"\0"
    if endpoint.family == "inet":
        packed = socket.inet_pton(socket.AF_INET, endpoint.address)
        return int(socket.AF_INET), struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", endpoint.port, packed)
    packed = socket.inet_pton(socket.AF_INET6, endpoint.address)
    rest = struct.pack("!HI16sI", endpoint.port, 0, packed, 0)
    return int(socket.AF_INET6), struct.pack("=H", socket.AF_INET6) + rest
