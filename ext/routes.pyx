# Routes: see routes.pxd. Owns nothing. Invariants: what is matched is the path as rules see it (path.pyx); a path that an origin gets from
# a rewrite is written from that form, so that rules, route and origin speak of one path; a location begins with what the operator wrote.


cdef const Span* route_request_edits(const Exchange* x) noexcept nogil:
    return &x.route.request_edits if x.route != NULL else &x.area.request_edits


cdef const Span* route_response_edits(const Exchange* x) noexcept nogil:
    return &x.route.response_edits if x.route != NULL else &x.area.response_edits


cdef uint64_t route_body_bytes_max(const Exchange* x) noexcept nogil:
    return x.route.body_bytes_max if x.route != NULL else x.area.body_bytes_max


cdef uint64_t route_read_ns(const Exchange* x) noexcept nogil:
    return x.route.read_ns if x.route != NULL else x.area.read_ns


# --- which one ---------------------------------------------------------------------------------------------------------------------------

cdef bint route_host(const Policy* p, const RouteSpec* r, const uint8_t* host, uint32_t length) noexcept nogil:
    """The route's host, or below it where it begins with a dot. One dot at the end of the client's is dropped, as for areas."""
    cdef const uint8_t* wanted = p.text + r.host.off
    if length and host[length - 1] == c".":
        length -= 1
    if wanted[0] != c".":
        return length == r.host.len and fold_equal(wanted, host, length)
    return length > r.host.len and fold_equal(wanted, host + length - r.host.len, r.host.len)


cdef bint route_path(const Policy* p, const RouteSpec* r, const uint8_t* path, uint32_t length, Span* groups) noexcept nogil:
    if r.match == ROUTE_PATTERN:
        # Without its patterns (a probe's policy) it matches nothing.
        return p.patterns != NULL and pattern_match(p.patterns[r.pattern], path, length, groups, <int>(r.groups + 1 if r.groups else 0))
    if length < r.path.len or (r.match == ROUTE_EXACT and length != r.path.len):
        return False
    return memcmp(p.text + r.path.off, path, r.path.len) == 0


cdef const RouteSpec* route_find(const Policy* p, const AreaSpec* area, const Facts* f, Span* groups) noexcept nogil:
    cdef const RouteSpec* r
    cdef uint32_t i
    for i in range(area.routes.len):
        r = &p.routes[area.routes.off + i]
        if r.methods and not r.methods >> f.head.method & 1:
            continue
        if r.host.len and not route_host(p, r, f.data + f.head.host.off, f.head.host.len):
            continue
        if route_path(p, r, f.path, f.path_len, groups):
            return r
    return NULL


cdef bint route_request(Core* e, Exchange* x, const Facts* f) noexcept nogil:
    cdef const Policy* p = f.policy
    cdef const PageSpec* page
    cdef uint32_t closed = f.area.maintenance
    x.route = route_find(p, f.area, f, e.groups)
    if x.route != NULL:
        closed = x.route.maintenance
    if closed:
        page = &p.pages[closed - 1]
        if page.allow == 0 or not prefixes_find(&p.prefixes[page.allow - 1], &f.client_full):
            x.own = 1
            x.retry_s = page.retry_s
            page_or_answer(e, x, page)
            return True
    if x.route != NULL:
        x.pool = &p.pools[x.route.pool]
    if x.route == NULL or x.route.page == 0:
        return False
    x.own = 1
    page_answer(e, x, &p.pages[x.route.page - 1], f)
    return True


# --- bytes of a URL ----------------------------------------------------------------------------------------------------------------------

cdef inline bint url_plain(uint8_t c) noexcept nogil:
    """Unreserved, sub-delims, ":", "@" and "/" (RFC 3986 3.3): the bytes of a path that stand for themselves."""
    return (c"a" <= c <= c"z" or c"A" <= c <= c"Z" or c"0" <= c <= c"9" or c == c"-" or c == c"." or c == c"_" or c == c"~"
            or c == c"!" or c == c"$" or c == c"&" or c == c"'" or c == c"(" or c == c")" or c == c"*" or c == c"+" or c == c","
            or c == c"=" or c == c":" or c == c"@" or c == c"/")


cdef inline void put_escaped(Writer* w, uint8_t c) noexcept nogil:
    cdef uint8_t escape[3]
    escape[0] = c"%"
    escape[1] = HEX_DIGITS[c >> 4]
    escape[2] = HEX_DIGITS[c & 15]
    escape[1] = upper_hex(escape[1])
    escape[2] = upper_hex(escape[2])
    put(w, escape, 3)


cdef inline bint upper_digit(uint8_t c) noexcept nogil:
    return c"0" <= c <= c"9" or c"A" <= c <= c"F"


cdef void put_path(Writer* w, const uint8_t* path, uint32_t n) noexcept nogil:
    """A normalised path as a URL has it. An escape stays one only if normalising would have left it so, in upper-case digits:
    "%41" there is no escape of "A" but came of "%2541" or the like, and an origin must not decode it a second time."""
    cdef uint32_t i
    cdef int value
    for i in range(n):
        if url_plain(path[i]):
            put_byte(w, path[i])
            continue
        if path[i] == c"%" and n - i >= 3 and upper_digit(path[i + 1]) and upper_digit(path[i + 2]):
            value = hex_value(path[i + 1]) * 16 + hex_value(path[i + 2])
            if not 0x20 < value < 0x7F or value == c"%":
                put_byte(w, c"%")
                continue
        put_escaped(w, path[i])


cdef void put_sent(Writer* w, const uint8_t* text, uint32_t n) noexcept nogil:
    """Part of a target as the client sent it: its escapes stay, what no URL has is escaped."""
    cdef uint32_t i
    for i in range(n):
        if url_plain(text[i]) or text[i] == c"%" or text[i] == c"?" or text[i] == c";":
            put_byte(w, text[i])
        else:
            put_escaped(w, text[i])


# --- redirects ---------------------------------------------------------------------------------------------------------------------------

cdef void put_sent_path(Writer* w, const Facts* f) noexcept nogil:
    """One slash at the front: two would name a host (RFC 3986 4.2)."""
    cdef const uint8_t* path = f.data + f.head.path.off
    cdef uint32_t n = f.head.path.len
    while n and path[0] == c"/":
        path += 1
        n -= 1
    put_byte(w, c"/")
    if f.head.path.len != n:
        put_sent(w, path, n)


cdef bint route_location(const Core* e, const Exchange* x, const Facts* f, const Span* parts, Writer* w) noexcept nogil:
    cdef const Policy* p = f.policy
    cdef const PartSpec* part
    cdef uint32_t i
    for i in range(parts.len):
        part = &p.parts[parts.off + i]
        if part.kind == PART_PATH:
            put_sent_path(w, f)
        elif part.kind == PART_QUERY or part.kind == PART_QUERY_MORE:
            if f.head.query.len:
                put_byte(w, c"?" if part.kind == PART_QUERY else c"&")
                put_sent(w, f.data + f.head.query.off, f.head.query.len)
        elif part.kind == PART_GROUP:
            put_path(w, f.path + e.groups[part.group].off, e.groups[part.group].len)
        elif part.kind == PART_HOST and f.head.host.len == 0:
            return False
        else:
            part_put(p, part, w, x, f)
    return not w.full


# --- rewrites ----------------------------------------------------------------------------------------------------------------------------

cdef void put_joined(Writer* w, const uint8_t* start, const uint8_t* text, uint32_t n) noexcept nogil:
    """A piece of a path; where it meets another with a slash on either side, one slash stays."""
    if n and text[0] == c"/" and w.at > start and (w.at - 1)[0] == c"/":
        text += 1
        n -= 1
    put(w, text, n)


cdef uint32_t rest_of(const Policy* p, const RouteSpec* r, const Facts* f) noexcept nogil:
    """Where the rest of the path begins."""
    cdef uint32_t n = r.strip.len
    if n == 0 or n > f.path_len or memcmp(p.text + r.strip.off, f.path, n) != 0:
        return 0
    if r.strip_whole and n < f.path_len and f.path[n] != c"/" and f.path[n - 1] != c"/":
        return 0
    return n


cdef bint has_dot_segments(const uint8_t* path, uint32_t n) noexcept nogil:
    cdef uint32_t i, dots = 0, other = 0
    for i in range(n + 1):
        if i == n or path[i] == c"/":
            if dots and dots <= 2 and other == 0:
                return True
            dots = other = 0
        elif path[i] == c".":
            dots += 1
        else:
            other += 1
    return False


cdef uint16_t route_target(Core* e, Exchange* x, const Facts* f, Writer* w) noexcept nogil:
    cdef const Policy* p = f.policy
    cdef const RouteSpec* r = x.route
    cdef const RequestHead* head = f.head
    cdef const PartSpec* part
    cdef uint32_t i, rest
    cdef Writer path
    if f.path_len == 0 or f.path[0] != c"/":
        return 400
    path.at = e.line
    path.end = e.line + sizeof(e.line)
    path.full = False
    rest = rest_of(p, r, f)
    for i in range(r.rewrite.len):
        part = &p.parts[r.rewrite.off + i]
        if part.kind == PART_TEXT:
            put_joined(&path, e.line, p.text + part.text.off, part.text.len)
        elif part.kind == PART_PATH:
            put_joined(&path, e.line, f.path, f.path_len)
        elif part.kind == PART_REST:
            put_joined(&path, e.line, f.path + rest, f.path_len - rest)
        elif part.kind == PART_GROUP:
            put_joined(&path, e.line, f.path + e.groups[part.group].off, e.groups[part.group].len)
    if path.full:
        return 414
    if has_dot_segments(e.line, <uint32_t>(path.at - e.line)):
        return 400
    if path.at == e.line or e.line[0] != c"/":
        put_byte(w, c"/")
    put_path(w, e.line, <uint32_t>(path.at - e.line))
    put(w, f.data + head.path.off + head.path.len, head.target.len - head.path.len)
    return 0
