# Checks of the routes in a policy image. Invariants afterwards: every span and index lies inside what it points into; a head can be written
# from names, values, types and locations without looking at their bytes; what stands in a place is of a kind that may stand there.

cdef enum:
    # Which parts may stand where, as masks over PART_*.
    PARTS_OF_VALUE = (1 << PART_TEXT) | (1 << PART_CLIENT_IP) | (1 << PART_REQUEST_ID) | (1 << PART_HOST) | (1 << PART_SCHEME)
    PARTS_OF_BODY = (1 << PART_TEXT) | (1 << PART_REQUEST_ID) | (1 << PART_CASE) | (1 << PART_STATUS)
    PARTS_OF_LOCATION = ((1 << PART_TEXT) | (1 << PART_HOST) | (1 << PART_SCHEME) | (1 << PART_PATH) | (1 << PART_QUERY)
                         | (1 << PART_QUERY_MORE) | (1 << PART_GROUP))
    PARTS_OF_REWRITE = (1 << PART_TEXT) | (1 << PART_PATH) | (1 << PART_REST) | (1 << PART_GROUP)
    FIELD_NAME_BYTES_MAX = 128
    FIELD_TEXT_BYTES_MAX = 256


# Printable ASCII (and tabs, where spaces may be too): nothing that ends a line.
cdef bint text_in_line(const Policy* p, const Span* s, bint spaces) noexcept nogil:
    cdef uint32_t i
    cdef uint8_t c
    for i in range(s.len):
        c = p.text[s.off + i]
        if not (0x20 < c < 0x7F or (spaces and (c == 0x20 or c == 0x09))):
            return False
    return True


cdef Reason route_parts(const Policy* p) noexcept nogil:
    cdef const PartSpec* part
    cdef uint32_t i
    for i in range(p.header.parts.count):
        part = &p.parts[i]
        if part.kind >= PARTS or not span_fits(&part.text, p.header.text.count):
            return "part"
        if (part.kind == PART_GROUP) != (part.group != 0) or part.group > PATTERN_GROUPS_MAX:
            return "part: group"
    return NULL


# A text of parts: kinds of a mask, no group above `groups`, texts that stay in their line (unless it is a body).
cdef bint parts_fit(const Policy* p, const Span* s, uint32_t kinds, uint32_t groups, bint spaces) noexcept nogil:
    cdef const PartSpec* part
    cdef uint32_t i
    if not span_fits(s, p.header.parts.count) or s.len > PARTS_MAX:
        return False
    for i in range(s.len):
        part = &p.parts[s.off + i]
        if not kinds >> part.kind & 1 or part.group > groups:
            return False
        if part.kind == PART_TEXT and kinds != PARTS_OF_BODY and not text_in_line(p, &part.text, spaces):
            return False
    return True


cdef Reason route_edits(const Policy* p) noexcept nogil:
    cdef const EditSpec* edit
    cdef uint32_t i, k
    for i in range(p.header.edits.count):
        edit = &p.edits[i]
        if edit.op > EDIT_PUT or edit.reserved or (edit.op == EDIT_DROP and edit.value.len):
            return "edit"
        if not span_fits(&edit.name, p.header.text.count) or edit.name.len == 0 or edit.name.len > FIELD_NAME_BYTES_MAX:
            return "edit: name"
        for k in range(edit.name.len):
            if TOKEN[p.text[edit.name.off + k]] == 0:
                return "edit: name"
        if not parts_fit(p, &edit.value, PARTS_OF_VALUE, 0, True):
            return "edit: value"
    return NULL


# Edits of one head: DROPs first.
cdef bint edits_fit(const Policy* p, const Span* s) noexcept nogil:
    cdef uint32_t i
    if not span_fits(s, p.header.edits.count) or s.len > EDITS_MAX:
        return False
    for i in range(1, s.len):
        if p.edits[s.off + i].op < p.edits[s.off + i - 1].op:
            return False
    return True


cdef bint field_text_fits(const Policy* p, const Span* s) noexcept nogil:
    return span_fits(s, p.header.text.count) and s.len <= FIELD_TEXT_BYTES_MAX and text_in_line(p, s, True)


cdef Reason route_pages(const Policy* p) noexcept nogil:
    cdef const PageSpec* page
    cdef uint64_t total
    cdef uint32_t i, k
    for i in range(p.header.pages.count):
        page = &p.pages[i]
        if (page.status != 0 and not 200 <= page.status <= 599) or page.flags & ~<uint32_t>PAGE_FILE:
            return "page"
        if not (field_text_fits(p, &page.content_type) and field_text_fits(p, &page.etag) and field_text_fits(p, &page.modified)):
            return "page: text"
        if page.flags & PAGE_FILE and (page.etag.len < 2 or page.modified.len == 0 or page.modified_s >> 40):
            return "page: validators"
        if not parts_fit(p, &page.body, PARTS_OF_BODY, 0, True):
            return "page: body"
        total = 0
        for k in range(page.body.len):
            total += p.parts[page.body.off + k].text.len
        if total > PAGE_BYTES_MAX:
            return "page: body"
        if not parts_fit(p, &page.location, PARTS_OF_LOCATION, PATTERN_GROUPS_MAX, False):
            return "page: location"
        if page.allow and not set_fits(p.header, page.allow):
            return "page: prefix set"
        if not all_zero(page.reserved, sizeof(page.reserved)):
            return "page: reserved bytes"
    return NULL


# Of a page that closes an area or a route: index + 1, or 0.
cdef bint maintenance_fits(const Policy* p, uint32_t page) noexcept nogil:
    return page == 0 or (page <= p.header.pages.count and p.pages[page - 1].status >= 500 and p.pages[page - 1].location.len == 0)


cdef Reason route_one(const Policy* p, const RouteSpec* r, uint32_t* patterns) noexcept nogil:
    cdef const PolicyHeader* h = p.header
    if r.match > ROUTE_PATTERN or r.methods >= 1 << METHOD_TRACE or r.strip_whole > 1 or r.groups > PATTERN_GROUPS_MAX:
        return "route"
    if not span_fits(&r.path, h.text.count) or r.path.len == 0 or r.path.len > ROUTE_PATH_BYTES_MAX:
        return "route: path"
    if not span_fits(&r.host, h.text.count) or r.host.len > POLICY_HOST_BYTES_MAX or not span_fits(&r.strip, h.text.count):
        return "route: text"
    if r.match == ROUTE_PATTERN:
        if r.pattern != patterns[0] or patterns[0] == PATTERNS_MAX or not text_in_line(p, &r.path, True):
            return "route: pattern"
        patterns[0] += 1
    elif r.pattern or r.groups:
        return "route: pattern"
    if r.page:
        if r.page > h.pages.count or p.pages[r.page - 1].status == 0:
            return "route: page"
        if not parts_fit(p, &p.pages[r.page - 1].location, PARTS_OF_LOCATION, r.groups, False):
            return "route: groups"
    if not maintenance_fits(p, r.maintenance):
        return "route: maintenance"
    if not parts_fit(p, &r.rewrite, PARTS_OF_REWRITE, r.groups, False):
        return "route: rewrite"
    if not edits_fit(p, &r.request_edits) or not edits_fit(p, &r.response_edits):
        return "route: edits"
    if r.read_ns == 0 or r.read_ns > POLICY_NS_MAX or not all_zero(r.reserved, sizeof(r.reserved)):
        return "route: times or reserved bytes"
    return NULL


cdef Reason route_area(const Policy* p, uint32_t index) noexcept nogil:
    cdef const AreaSpec* a = &p.areas[index]
    cdef const PageSpec* page
    cdef uint32_t i, pool, last
    if not span_fits(&a.routes, p.header.routes.count) or a.routes.len > ROUTES_AREA_MAX:
        return "area: routes"
    last = p.areas[index + 1].pool if index + 1 < p.header.areas.count else p.header.pools.count
    for i in range(a.routes.len):
        pool = p.routes[a.routes.off + i].pool
        if pool < a.pool or pool >= last:
            return "route: pool"
    if not edits_fit(p, &a.request_edits) or not edits_fit(p, &a.response_edits):
        return "area: edits"
    if not span_fits(&a.error_pages, p.header.pages.count):
        return "area: error pages"
    for i in range(a.error_pages.len):
        page = &p.pages[a.error_pages.off + i]
        if (page.status != 0 and page.status < 400) or page.location.len or page.flags:
            return "area: error pages"
    if not maintenance_fits(p, a.maintenance):
        return "area: maintenance"
    return NULL


# Areas and pools were checked before.
cdef Reason policy_routes(const Policy* p) noexcept nogil:
    cdef uint32_t i, patterns = 0
    cdef Reason reason = route_parts(p)
    if reason == NULL:
        reason = route_edits(p)
    if reason == NULL:
        reason = route_pages(p)
    for i in range(p.header.routes.count):
        if reason == NULL:
            reason = route_one(p, &p.routes[i], &patterns)
    for i in range(p.header.areas.count):
        if reason == NULL:
            reason = route_area(p, i)
    return reason
