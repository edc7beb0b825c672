# Request ids: see request_id.pxd. Invariant: what is taken over goes as it is into heads, JSON and pages: no byte of it needs escaping.


cdef inline bint id_byte(uint8_t c) noexcept nogil:
    """Token characters, and those that base64 and URNs add."""
    return TOKEN[c] != 0 or c == c"/" or c == c"=" or c == c":" or c == c"@"


cdef void request_id_take(Exchange* x, const Facts* f) noexcept nogil:
    cdef const RequestHead* head = f.head
    cdef int32_t i = head.first[HEADER_X_REQUEST_ID]
    cdef const Header* h
    cdef uint32_t k
    if i < 0 or f.listener.trusted == 0 or prefixes_find(&f.policy.prefixes[f.listener.trusted - 1], &x.client.peer) == 0:
        return
    h = &head.headers[i]
    if h.value_len == 0 or h.value_len > REQUEST_ID_BYTES_MAX:
        return
    for k in range(h.value_len):
        if not id_byte(f.data[h.value_off + k]):
            return
    for k in range(<uint32_t>i + 1, head.header_count):
        if head.headers[k].id == HEADER_X_REQUEST_ID:
            return                  # which one it is, nobody can tell
    memcpy(x.id_text, f.data + h.value_off, h.value_len)
    x.id_len = <uint8_t>h.value_len


cdef void put_request_id(Writer* w, const Exchange* x) noexcept nogil:
    if x.id_len:
        put(w, x.id_text, x.id_len)
    else:
        put_hex16(w, x.request_id)
