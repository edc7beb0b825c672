# Accept, as far as our own answers go: contract in media.pxd. Owns nothing. Invariants: linear in the field; an element that is not sound
# says nothing; parameters other than the weight make no difference.
cdef enum:
    RANGE_NONE = 0
    RANGE_ALL = 1               # three that take in text/html, the most precise last
    RANGE_TEXT = 2
    RANGE_HTML = 3
    RANGE_JSON = 4
    RANGE_PROBLEM = 5           # what we send
    RANGES = 6

    Q_WHOLE = 1000         # q=1
    Q_NONE = -1


cdef int media_range(const uint8_t* text, uint32_t length) noexcept nogil:
    if folds_to(text, length, "*/*"):
        return RANGE_ALL
    if folds_to(text, length, "text/*"):
        return RANGE_TEXT
    if folds_to(text, length, "text/html"):
        return RANGE_HTML
    if folds_to(text, length, "application/problem+json"):
        return RANGE_PROBLEM
    if folds_to(text, length, "application/json"):
        return RANGE_JSON
    if length > 17 and fold_equal(text, <const uint8_t*>b"application/", 12) and fold_equal(text + length - 5, <const uint8_t*>b"+json", 5):
        return RANGE_JSON
    return RANGE_NONE


cdef int32_t media_weight(const uint8_t* text, uint32_t length) noexcept nogil:
    """qvalue (RFC 9110 12.4.2) in thousandths."""
    cdef int32_t weight, scale = 100
    cdef uint32_t i
    if not 1 <= length <= 5 or not c"0" <= text[0] <= c"1" or (length > 1 and text[1] != c"."):
        return Q_NONE
    weight = (text[0] - c"0") * Q_WHOLE
    for i in range(2, length):
        if not c"0" <= text[i] <= c"9":
            return Q_NONE
        weight += (text[i] - c"0") * scale
        scale //= 10
    return weight if weight <= Q_WHOLE else Q_NONE


cdef const uint8_t* skip_space(const uint8_t* p, const uint8_t* end) noexcept nogil:
    while p < end and (p[0] == c" " or p[0] == c"\t"):
        p += 1
    return p


cdef const uint8_t* media_element(const uint8_t* p, const uint8_t* end, int* kind, int32_t* weight) noexcept nogil:
    """A media range and its parameters. Returns where its comma is, or the end."""
    cdef const uint8_t* name = p
    cdef uint8_t value[65]
    cdef uint32_t value_len = 0, taken
    cdef bint q
    while p < end and (TOKEN[p[0]] or p[0] == c"/"):
        p += 1
    kind[0] = media_range(name, <uint32_t>(p - name))
    weight[0] = Q_WHOLE
    while True:
        p = skip_space(p, end)
        if p == end or p[0] == c",":
            return p
        if p[0] != c";":
            break
        name = p = skip_space(p + 1, end)
        if p == end or p[0] == c";" or p[0] == c",":
            continue                # an empty parameter
        while p < end and TOKEN[p[0]]:
            p += 1
        if p == name or p == end or p[0] != c"=":
            break
        q = folds_to(name, <uint32_t>(p - name), "q")
        taken = read_value(p + 1, end, value, &value_len)
        if taken == 0:
            break
        p += 1 + taken
        if q and weight[0] != Q_NONE:       # a weight that is none spoils the element, whatever follows
            weight[0] = media_weight(value, value_len)
    kind[0] = RANGE_NONE
    while p < end and p[0] != c",":
        p += 1
    return p


cdef void media_weigh(const uint8_t* p, const uint8_t* end, int32_t* weights) noexcept nogil:
    """The elements of one field; of a range that is there twice the heavier counts."""
    cdef int kind = RANGE_NONE
    cdef int32_t weight = Q_NONE
    while p < end:
        p = media_element(skip_space(p, end), end, &kind, &weight)
        if weight > weights[kind]:
            weights[kind] = weight
        p += 1                      # the comma


cdef bint names_json(const uint8_t* value, uint32_t length) noexcept nogil:
    """Cheap, for nearly every request: without this letter there is no JSON."""
    return memchr(value, c"j", length) != NULL or memchr(value, c"J", length) != NULL


cdef bint accepts_json(const uint8_t* data, const RequestHead* head) noexcept nogil:
    cdef int32_t weights[RANGES]
    cdef int32_t i, json, html
    cdef bint named = False
    cdef const Header* h
    if head.first[HEADER_ACCEPT] < 0:
        return False
    for i in range(RANGES):
        weights[i] = Q_NONE
    for i in range(head.first[HEADER_ACCEPT], head.header_count):
        h = &head.headers[i]
        if h.id == HEADER_ACCEPT:
            named |= names_json(data + h.value_off, h.value_len)
    if not named:
        return False
    for i in range(head.first[HEADER_ACCEPT], head.header_count):
        h = &head.headers[i]
        if h.id == HEADER_ACCEPT:
            media_weigh(data + h.value_off, data + h.value_off + h.value_len, weights)
    json = weights[RANGE_PROBLEM] if weights[RANGE_PROBLEM] >= 0 else weights[RANGE_JSON]
    html = weights[RANGE_HTML] if weights[RANGE_HTML] >= 0 else weights[RANGE_TEXT] if weights[RANGE_TEXT] >= 0 else weights[RANGE_ALL]
    return json > 0 and json >= html
