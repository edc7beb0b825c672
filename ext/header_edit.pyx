# Header edits: see header_edit.pxd. Owns nothing. Invariant: names and texts were checked when the gateway file was read and again by
# route_image.pyx; what is filled in is an address, digits, a parsed host or one of two words, so that no value can end its field.


cdef inline bint name_is(const Policy* p, const EditSpec* edit, const uint8_t* name, uint32_t length) noexcept nogil:
    return edit.name.len == length and fold_equal(p.text + edit.name.off, name, length)


cdef bint edits_drop(const Policy* p, const Span* edits, const uint8_t* name, uint32_t length) noexcept nogil:
    cdef uint32_t i
    cdef const EditSpec* edit
    for i in range(edits.len):
        edit = &p.edits[edits.off + i]
        if edit.op != EDIT_DROP:
            return False
        if name_is(p, edit, name, length):
            return True
    return False


cdef bint edits_name(const Policy* p, const Span* edits, const char* name) noexcept nogil:
    cdef uint32_t i
    for i in range(edits.len):
        if name_is(p, &p.edits[edits.off + i], <const uint8_t*>name, <uint32_t>c_strlen(name)):
            return True
    return False


cdef bint part_put(const Policy* p, const PartSpec* part, Writer* w, const Exchange* x, const Facts* f) noexcept nogil:
    cdef uint8_t text[46]
    if part.kind == PART_TEXT:
        put(w, p.text + part.text.off, part.text.len)
    elif part.kind == PART_CLIENT_IP:
        put(w, text, address_format(&x.client_address, text))
    elif part.kind == PART_REQUEST_ID:
        put_request_id(w, x)
    elif part.kind == PART_SCHEME:
        put_either(w, x.https != 0, b"https", b"http")
    elif part.kind == PART_HOST and f != NULL:
        put(w, f.data + f.head.host.off, f.head.host.len)
    else:
        return False
    return True


cdef void edits_put(const Policy* p, const Span* edits, Writer* w, const Exchange* x, const Facts* f) noexcept nogil:
    cdef uint32_t i, k
    cdef const EditSpec* edit
    for i in range(edits.len):
        edit = &p.edits[edits.off + i]
        if edit.op != EDIT_PUT:
            continue
        put(w, p.text + edit.name.off, edit.name.len)
        put(w, b": ", 2)
        for k in range(edit.value.len):
            part_put(p, &p.parts[edit.value.off + k], w, x, f)
        put(w, b"\r\n", 2)
