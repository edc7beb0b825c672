# The engine as Python sees it: one object a worker, that is opened, passed over, swapped, drained and closed. Everything is allocated in
# __init__; a pass makes no Python object.
import os

cimport cython


cdef bint core_open(Core* e, uint32_t connections, uint32_t origins, uint32_t buffers, uint32_t streams) noexcept nogil:
    cdef uint32_t i
    e.relay = <uint8_t*>scrubber_pages(RELAY_BYTES)
    for i in range(LISTENERS_MAX):
        e.listeners[i].h.fd = -1
    e.ready.ready_next = &e.ready
    e.ready.ready_prev = &e.ready
    e.now_ns = scrubber_clock(CLOCK_MONOTONIC)
    e.wall_offset_ns = scrubber_clock(CLOCK_REALTIME) - e.now_ns
    e.tick = e.now_ns / TICK_NS
    if e.relay == NULL or not pool_open(&e.clients, connections, sizeof(Client)):
        return False
    if not pool_open(&e.exchanges, connections + streams, sizeof(Exchange)) or not pool_open(&e.origins, origins, sizeof(Origin)):
        return False
    if not pool_open(&e.buffers, buffers, sizeof(Buffer)) or not pool_open(&e.notes, connections, sizeof(ProxyNote)):
        return False
    e.sealed = <uint8_t*>scrubber_pages(TLS_SEALED_BYTES)
    if e.sealed == NULL or not pool_open(&e.tls, connections + origins, sizeof(Tls)):
        return False
    e.frames = <uint8_t*>scrubber_pages(FRAMES_BYTES)
    e.head = <uint8_t*>scrubber_pages(BUFFER_BYTES)
    e.fields = <nghttp2_nv*>scrubber_pages(HTTP2_ANSWER_FIELDS_MAX * sizeof(nghttp2_nv))
    if e.frames == NULL or e.head == NULL or e.fields == NULL or HTTP2_CALLBACKS == NULL or HTTP2_OPTION == NULL:
        return False
    if not pool_open(&e.sessions, connections, sizeof(Http2)) or not pool_open(&e.streams, streams, sizeof(Stream)):
        return False
    if not pool_open(&e.uplinks, origins, sizeof(Uplink)):
        return False
    pipes_open(e)
    e.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
    e.timer.h.kind = HANDLE_TIMER
    e.timer.h.timer_slot = -1
    e.timer.h.fd = scrubber_timerfd(TICK_NS)
    return e.epoll_fd >= 0 and e.timer.h.fd >= 0 and handle_watch(e, &e.timer.h)


cdef void area_none_fill(AreaSpec* a) noexcept nogil:
    """Limits while no area claims a connection."""
    a.http1.line_bytes_max = 8192
    a.http1.head_bytes_max = HEAD_BYTES_MAX
    a.http1.headers_max = 100
    a.ranges_max = 1
    a.head_ns = <uint64_t>10 * 1000000000
    a.idle_ns = <uint64_t>10 * 1000000000
    a.write_ns = <uint64_t>10 * 1000000000
    a.body_grace_ns = <uint64_t>5 * 1000000000
    a.body_bytes_s_min = 500


cdef void core_close(Core* e) noexcept nogil:
    cdef uint32_t i
    for i in range(e.clients.count):
        if e.clients.taken != NULL and e.clients.taken[i]:
            client_close(e, <Client*>(e.clients.base + i * e.clients.object_bytes), False)
    for i in range(e.origins.count):
        if e.origins.taken != NULL and e.origins.taken[i]:
            origin_close(e, <Origin*>(e.origins.base + i * e.origins.object_bytes))
    graves_clear(e)
    if e.timer.h.fd >= 0:
        close(e.timer.h.fd)
    if e.epoll_fd >= 0:
        close(e.epoll_fd)
    pipes_close(e)
    pool_close(&e.clients)
    pool_close(&e.exchanges)
    pool_close(&e.origins)
    pool_close(&e.buffers)
    pool_close(&e.notes)
    pool_close(&e.tls)
    pool_close(&e.sessions)
    pool_close(&e.streams)
    pool_close(&e.uplinks)
    spares_close(e)
    if e.frames != NULL:
        munmap(e.frames, FRAMES_BYTES)
    if e.head != NULL:
        munmap(e.head, BUFFER_BYTES)
    if e.fields != NULL:
        munmap(e.fields, HTTP2_ANSWER_FIELDS_MAX * sizeof(nghttp2_nv))
    if e.sealed != NULL:
        munmap(e.sealed, TLS_SEALED_BYTES)
    if e.relay != NULL:
        munmap(e.relay, RELAY_BYTES)


cdef void origins_hold(const Core* e, uint32_t* tls, uint32_t* uplinks) noexcept nogil:
    """What open connections to origins have of other pools."""
    cdef const Origin* o
    cdef uint32_t i
    tls[0] = 0
    uplinks[0] = 0
    for i in range(e.origins.count):
        o = <const Origin*>(e.origins.base + i * e.origins.object_bytes)
        if e.origins.taken[i]:
            tls[0] += o.tls != NULL
            uplinks[0] += o.http2 != NULL


class EngineError(Exception):
    """The engine could not be opened, or was asked for what it cannot do."""


@cython.no_gc_clear     # the core, which goes last, points into memory and policies
cdef class Engine:
    """A worker's engine over listeners that it does not own.

    memory: the mapped regions, slot being this worker's; policy: the image to begin with; listeners: (fd, index in the policy's listeners);
    config: connections_max, origins_max, buffers_max, streams_max (counts).
    """
    cdef Core* core
    cdef Memory memory
    cdef list policies              # PolicyImage by slot of core.policies, None where free
    cdef readonly uint64_t generation

    def __cinit__(self, Memory memory, PolicyImage policy, list listeners, dict config):
        cdef uint32_t connections = config.get("connections_max", policy.policy.header.connections_max)
        cdef bytes key = os.urandom(16)
        self.memory = memory
        self.policies = [None] * POLICIES_MAX
        self.core = <Core*>scrubber_pages(sizeof(Core))
        if self.core == NULL:
            raise MemoryError()
        self.core.epoll_fd = -1
        self.core.timer.h.fd = -1
        if memory.shared.slot < 0:
            raise EngineError("the memory was opened without a worker slot")
        self.core.shared = &memory.shared
        self.core.worker = <uint32_t>memory.shared.slot
        self.core.totals = memory.shared.totals[self.core.worker]
        self.core.gauges = memory.shared.gauges[self.core.worker]
        memcpy(&self.core.id_key, <const char*>key, 16)
        area_none_fill(&self.core.area_none)
        self.core.answer_limits = Http1Limits(line_bytes_max=HEAD_BYTES_MAX, head_bytes_max=HEAD_BYTES_MAX, headers_max=HEADERS_MAX)
        if not core_open(self.core, connections, config.get("origins_max", 4096), config.get("buffers_max", 8192),
                         config.get("streams_max", 1024)):
            raise MemoryError("the pools could not be allocated")
        self._install(policy)
        for fd, index in listeners:
            self.listen(fd, index)
        self.core.gauges.pid = os.getpid()
        self.core.gauges.beat_ns = self.core.now_ns

    def __dealloc__(self):
        if self.core != NULL:
            core_close(self.core)
            munmap(self.core, sizeof(Core))

    cdef _install(self, PolicyImage policy):
        cdef uint32_t i
        cdef PolicyRef* place = NULL
        for i in range(POLICIES_MAX):
            if not self.core.policies[i].current and self.core.policies[i].refs == 0:
                self.policies[i] = None     # unmapped with its last reference
                if place == NULL:
                    place = &self.core.policies[i]
                    self.policies[i] = policy
                    self.core.policies[i].policy = &policy.policy
        if place == NULL:
            raise EngineError(f"{POLICIES_MAX} older policies are still held by requests in flight")
        if self.core.policy != NULL:
            self.core.policy.current = False
        place.current = True
        self.core.policy = place
        log_update(self.core)
        origin_pools_update(self.core)
        self.generation = policy.policy.header.generation
        self.core.gauges.generation = self.generation

    def fileno(self) -> int:
        """The engine's epoll descriptor; readable when run_pass has something to do."""
        return self.core.epoll_fd

    def run_pass(self) -> bool:
        """One pass, bounded in time and events. True: there is work left; call again soon."""
        cdef bint more
        with nogil:
            more = core_pass(self.core)
        return more

    def swap(self, PolicyImage policy) -> None:
        """Put another policy in force, between two passes. Requests in flight end under the one they began with."""
        if policy.policy.header.listeners.count < self.core.policy.policy.header.listeners.count:
            self.core.gauges.generation_refused = policy.policy.header.generation
            raise EngineError("the policy has fewer listeners than this worker serves")
        self._install(policy)

    def listen(self, int fd, uint32_t index) -> None:
        """Accept on this descriptor for the listener of that index in the policy; it stays the caller's. EngineError."""
        if index >= self.core.policy.policy.header.listeners.count or index >= LISTENERS_MAX:
            raise EngineError(f"listener {index} is not in the policy")
        if self.core.listeners[index].h.fd >= 0:
            raise EngineError(f"listener {index} is open already")
        if not listener_open(self.core, fd, index):
            raise EngineError(f"listener {index}: descriptor {fd} cannot be watched")

    def retire(self, uint32_t index, double deadline_s) -> None:
        """Take what waits at a listener, then accept no more there; its requests may end until the deadline."""
        if index < LISTENERS_MAX:
            listener_retire(self.core, index, <uint64_t>(deadline_s * 1e9))

    def drain(self, double deadline_s, bint queued=True) -> None:
        """Accept no more; let requests end until the deadline. queued: take first what waits to be accepted."""
        core_drain(self.core, <uint64_t>(deadline_s * 1e9), queued)

    @property
    def drained(self) -> bool:
        """No connection is left."""
        return self.core.gauges.connections == 0

    def pools(self) -> dict:
        """Objects taken and in all, by pool; whole again when nothing is in flight."""
        cdef int i
        pools_note(self.core)
        return {name: (self.core.gauges.pools[i].used, self.core.gauges.pools[i].size) for i, name in enumerate(POOL_NAMES)}

    def left(self) -> dict:
        """Objects that are taken though no connection of a client is open, by pool; empty: every pool is whole."""
        cdef uint32_t tls, uplinks
        used = {name: taken for name, (taken, _) in self.pools().items()}
        origins_hold(self.core, &tls, &uplinks)
        used["origins"] -= self.core.gauges.origin_connections      # those that are kept open
        used["tls"] -= tls
        used["uplinks"] -= uplinks
        return {name: taken for name, taken in used.items() if taken}

    def sizes(self) -> dict:
        """Bytes an object, by kind."""
        return {"client": sizeof(Client), "exchange": sizeof(Exchange), "origin": sizeof(Origin), "buffer": sizeof(Buffer),
                "tls": sizeof(Tls), "session": sizeof(Http2), "stream": sizeof(Stream), "uplink": sizeof(Uplink)}
