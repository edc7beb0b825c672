# Routes: which one a request takes, what it answers here, which path the origin gets. Asked after the rules (step 6).
# The first route of the area that matches, NULL: none. groups: of a pattern, PATTERN_GROUPS_MAX + 1 places in the normalised path.
cdef const RouteSpec* route_find(const Policy* p, const AreaSpec* area, const Facts* f, Span* groups) noexcept nogil
# Takes the route, and answers where nothing goes to an origin. True: answered (the exchange is done but for the sending).
cdef bint route_request(Core* e, Exchange* x, const Facts* f) noexcept nogil
# The path and query for the origin, as the route rewrites it. 0, or the status to answer with.
cdef uint16_t route_target(Core* e, Exchange* x, const Facts* f, Writer* w) noexcept nogil
# Where a redirect leads; nothing of the client's in it can leave its place in the URL. False: not to be told (no Host, no room).
cdef bint route_location(const Core* e, const Exchange* x, const Facts* f, const Span* parts, Writer* w) noexcept nogil
# What the route says, else the area.
cdef const Span* route_request_edits(const Exchange* x) noexcept nogil
cdef const Span* route_response_edits(const Exchange* x) noexcept nogil
cdef uint64_t route_body_bytes_max(const Exchange* x) noexcept nogil
cdef uint64_t route_read_ns(const Exchange* x) noexcept nogil
