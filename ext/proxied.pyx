# Clients named by a PROXY header: see proxied.pxd. Invariants: a header is read from a listed peer only, once, before anything else; from
# then on `Client.peer` is the client it named, and blocks, caps and counts are the client's; the peer itself is never-block.


cdef bint proxy_listed(const Facts* f) noexcept nogil:
    return f.listener.proxy != 0 and prefixes_find(&f.policy.prefixes[f.listener.proxy - 1], &f.client_full) != 0


cdef void note_tls_version(Writer* w, const uint8_t* data, Span span) noexcept nogil:
    """ECS has "1.3" where the header has "TLSv1.3"."""
    if span.len > 4 and memcmp(data + span.off, <const char*>b"TLSv", 4) == 0:
        span.off += 4
        span.len -= 4
    put_field(w, b"tls.version", 11, data + span.off, span.len, 16)


cdef enum:
    OTHER_BYTES_MAX = 32        # of a TLV's value in the log
    OTHERS_END_BYTES = 48       # what closes their list, and how many are not in it
    OTHERS_BYTES_MIN = 96       # room for the list with nothing in it: always kept


cdef void put_other(Writer* w, const uint8_t* data, const ProxyTlv* tlv) noexcept nogil:
    put_either(w, tlv.inner, b"\"20.", b"\"")
    put_hex_bytes(w, &tlv.kind, 1)
    put_byte(w, 58)
    put_hex_bytes(w, data + tlv.value.off, tlv.value.len if tlv.value.len < OTHER_BYTES_MAX else OTHER_BYTES_MAX)
    put_either(w, tlv.value.len > OTHER_BYTES_MAX, b"+\"", b"\"")


cdef void put_others(Writer* w, const uint8_t* data, const ProxyHeader* h) noexcept nogil:
    """TLVs that we have no name for, as texts of TYPE:VALUE in hex."""
    cdef uint8_t* before
    cdef uint32_t i, shown = 0
    if h.other_count == 0:
        return
    w.end -= OTHERS_END_BYTES
    put_name(w, b"scrubber.proxy.tlvs", 19)
    put_byte(w, 91)
    for i in range(h.other_count):
        before = w.at
        if shown:
            put_byte(w, 44)
        put_other(w, data, &h.others[i])
        if w.full:
            w.full = False
            w.at = before
        else:
            shown += 1
    w.end += OTHERS_END_BYTES
    put_byte(w, 93)
    if h.others_left_out + h.other_count > shown:
        put_number(w, b"scrubber.proxy.tlvs_left_out", 28, h.others_left_out + h.other_count - shown)


cdef void note_header(ProxyNote* note, const uint8_t* data, const ProxyHeader* h) noexcept nogil:
    """The JSON fields that access lines of this connection carry; one that does not fit is left out."""
    cdef Writer w
    w.at = note.text
    w.end = note.text + sizeof(note.text) - OTHERS_BYTES_MIN
    w.full = False
    put_address(&w, b"scrubber.proxy.ip", 17, &note.peer)
    if h.named:
        put_address(&w, b"destination.ip", 14, &h.destination)
        put_number(&w, b"destination.port", 16, h.destination_port)
    if h.tls:
        put_number(&w, b"scrubber.proxy.tls_client", 25, h.tls_client)
        put_number(&w, b"scrubber.proxy.tls_verify", 25, h.tls_verify)
    put_field(&w, b"tls.client.server_name", 22, data + h.authority.off, h.authority.len, 255)
    put_field(&w, b"tls.next_protocol", 17, data + h.alpn.off, h.alpn.len, 32)
    note_tls_version(&w, data, h.tls_version)
    put_field(&w, b"tls.cipher", 10, data + h.tls_cipher.off, h.tls_cipher.len, 64)
    put_field(&w, b"scrubber.proxy.unique_id", 24, data + h.unique_id.off, h.unique_id.len, PROXY_UNIQUE_ID_BYTES_MAX)
    put_field(&w, b"scrubber.proxy.vpc_endpoint", 27, data + h.vpc_endpoint.off, h.vpc_endpoint.len, 64)
    put_field(&w, b"tls.client.x509.subject.common_name", 35, data + h.tls_name.off, h.tls_name.len, 64)
    put_field(&w, b"tls.server.x509.signature_algorithm", 35, data + h.tls_signature.off, h.tls_signature.len, 32)
    put_field(&w, b"tls.server.x509.public_key_algorithm", 36, data + h.tls_key.off, h.tls_key.len, 32)
    put_field(&w, b"scrubber.proxy.netns", 20, data + h.netns.off, h.netns.len, 64)
    w.end += OTHERS_BYTES_MIN
    put_others(&w, data, h)
    note.text_len = <uint16_t>(w.at - note.text)


cdef void proxied_refuse(Core* e, Client* c) noexcept nogil:
    """Not answered: whoever was to send a header does not expect HTTP. The access line tells the operator."""
    cdef Exchange* x = exchange_open(e, c)
    x.reason = HTTP1_BAD_PROXY_HEADER
    x.judged_ns = e.now_ns
    x.keep_alive = 0
    x.response_done = 1
    e.totals.bad_requests += 1
    note_refused(e, c, x)
    client_close(e, c, True)


cdef bint proxied_name(Core* e, Client* c, const ProxyHeader* h) noexcept nogil:
    """The connection is its client's from here on: what accept asks of others is asked now. False: refused."""
    cdef Facts f
    cdef uint64_t count_key = 0
    cdef bint counted = False
    memset(&f, 0, sizeof(Facts))
    c.peer = h.address
    c.port = h.port
    c.proof = PROOF_PROXY
    f.policy = e.policy.policy
    f.listener = &f.policy.listeners[c.listener]
    f.client_full = c.peer
    f.proof = PROOF_PROXY
    facts_address(e, &f)
    c.peer_key = f.client_key
    if accept_refused(e, &f) or not connection_counted(e, &f, &count_key, &counted):
        return False
    c.count_key = count_key
    c.counted = counted
    return True


cdef bint proxied_read(Core* e, Client* c) noexcept nogil:
    cdef Buffer* b = c.inbox
    cdef ProxyHeader h
    cdef ProxyNote* note
    cdef int outcome = proxy_header_parse(b.data + b.start, b.end - b.start, &h)
    if outcome == PROXY_MORE:
        return True
    if outcome == PROXY_BAD:
        proxied_refuse(e, c)
        return False
    c.proxy_due = 0
    # As many as clients, one a client: cannot be empty.
    note = <ProxyNote*>pool_get(&e.notes)
    c.proxy = note
    note.peer = c.peer
    note.destination = h.destination
    note.destination_port = h.destination_port
    note_header(note, b.data + b.start, &h)
    b.start += h.length
    if h.named and not proxied_name(e, c, &h):
        client_close(e, c, True)
        return False
    return True


cdef inline bint no_address(const Address* a) noexcept nogil:
    return load_be64(a.bytes) == 0 and load_be64(a.bytes + 8) == 0


cdef uint32_t proxied_write(const Exchange* x, int version, uint8_t* out) noexcept nogil:
    cdef const Client* c = x.client
    cdef Address destination
    cdef uint16_t port = 0
    if c.proof == PROOF_PROXY:
        destination = c.proxy.destination
        port = c.proxy.destination_port
    elif not scrubber_local(c.h.fd, destination.bytes, &port):
        return proxy_header_write(version, NULL, 0, NULL, 0, out)
    # Whoever comes by a Unix socket has no address.
    if no_address(&x.client_address):
        return proxy_header_write(version, NULL, 0, NULL, 0, out)
    return proxy_header_write(version, &x.client_address, x.client_port, &destination, port, out)
