# Python faces of routes for tests: matching, rewriting and locations over a policy and a request's bytes, without an engine.


cdef class RouteProbe:
    """One area of a policy; requests are bytes of a head."""
    cdef PolicyImage image
    cdef Core* core
    cdef PolicyRef ref
    cdef Exchange* exchange
    cdef Client* client
    cdef Facts facts
    cdef bytes head

    def __cinit__(self, PolicyImage image, uint32_t area, bytes head):
        cdef uint32_t scan = 0
        cdef Http1Limits limits
        self.core = <Core*>c_calloc(1, sizeof(Core))
        self.exchange = <Exchange*>c_calloc(1, sizeof(Exchange))
        if self.core == NULL or self.exchange == NULL:
            raise MemoryError()
        self.image = image
        self.head = head
        limits.line_bytes_max = HEAD_BYTES_MAX
        limits.head_bytes_max = HEAD_BYTES_MAX
        limits.headers_max = HEADERS_MAX
        if request_parse(<const uint8_t*><const char*>head, len(head), &scan, &limits, &self.core.request) != HTTP1_OK:
            raise ValueError("not a request")
        assert area < image.policy.header.areas.count
        self.ref.policy = &image.policy
        self.exchange.policy = &self.ref
        self.exchange.area = &image.policy.areas[area]
        self.facts.policy = &image.policy
        self.facts.area = self.exchange.area
        self.facts.data = <const uint8_t*><const char*>self.head
        self.facts.head = &self.core.request
        self.facts.path = self.core.path
        self.facts.path_len = path_normalise(self.facts.data, self.core.request.path, self.core.path, PATH_BYTES_MAX)
        self.exchange.route = route_find(&image.policy, self.exchange.area, &self.facts, self.core.groups)

    def __dealloc__(self):
        c_free(self.core)
        c_free(self.exchange)

    @property
    def route(self) -> int | None:
        """The index in its area of the route that matched."""
        if self.exchange.route == NULL:
            return None
        return <int>(self.exchange.route - self.image.policy.routes) - <int>self.exchange.area.routes.off

    @property
    def groups(self) -> list[bytes]:
        """What the pattern's groups hold, the whole match first."""
        cdef uint32_t i
        return [(<const char*>self.core.path)[self.core.groups[i].off:self.core.groups[i].off + self.core.groups[i].len]
                for i in range(self.exchange.route.groups + 1)]

    def target(self) -> bytes | int:
        """What the origin gets of a rewriting route, or the status to refuse with."""
        cdef uint8_t out[20000]
        cdef Writer w
        cdef uint16_t status
        w.at = out
        w.end = out + sizeof(out)
        w.full = False
        assert self.exchange.route != NULL and self.exchange.route.rewrite.len
        with nogil:
            status = route_target(self.core, self.exchange, &self.facts, &w)
        return status if status else (<const char*>out)[:w.at - out]

    def location(self) -> bytes | None:
        """Where a redirecting route leads; None: not to be told."""
        cdef uint8_t out[60000]
        cdef Writer w
        cdef bint told
        w.at = out
        w.end = out + sizeof(out)
        w.full = False
        assert self.exchange.route != NULL and self.exchange.route.page
        with nogil:
            told = route_location(self.core, self.exchange, &self.facts,
                                  &self.image.policy.pages[self.exchange.route.page - 1].location, &w)
        return (<const char*>out)[:w.at - out] if told else None


def probe_http_date(text: bytes) -> int:
    """Seconds since 1970 of an IMF-fixdate, -1: not one."""
    return http_date(<const uint8_t*><const char*>text, len(text))
