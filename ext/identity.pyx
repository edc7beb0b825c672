# Who a request is from: the trusted chain walked hop by hop, and the account that it presents (account.pyx). Contract in identity.pxd.
# Owns nothing. Invariants: only what a trusted hop wrote is ever believed; what cannot be read ends the walk, it is never skipped; an
# address comes out with IPv4-mapped read as IPv4.
#
# X-Forwarded-For is walked where the request has one, Forwarded only where it has none: nearly every proxy appends to the former and
# passes the latter through, so that a client could choose its own name in it. A proxy that writes only Forwarded must remove the other.
cdef enum:
    NODE_BYTES_MAX = 64         # a node name with its port
    SCHEME_BYTES_MAX = 32


cdef bint sound_port(const uint8_t* text, uint32_t length) noexcept nogil:
    """1 to 5 digits up to 65535, or an obfuscated port, `_` and token characters (RFC 7239 6)."""
    cdef uint64_t number
    if length > 1 and text[0] == c"_":
        return is_token(text, length)
    return length <= 5 and parse_decimal(text, length, &number) and number <= 65535


cdef bint parse_node(const uint8_t* text, uint32_t length, bint bare_v6, Address* out) noexcept nogil:
    """Address of a hop, with or without port. Unknown, obfuscated and zoned names are none."""
    cdef const uint8_t* colon
    cdef const uint8_t* close
    if length == 0 or length > NODE_BYTES_MAX:
        return False
    if text[0] == c"[":
        close = <const uint8_t*>memchr(text, c"]", length)
        if close == NULL or memchr(text, c":", <size_t>(close - text)) == NULL:
            return False
        if close + 1 < text + length and (close[1] != c":" or not sound_port(close + 2, <uint32_t>(text + length - close - 2))):
            return False
        return address_parse(text + 1, <uint32_t>(close - text - 1), out)
    colon = <const uint8_t*>memchr(text, c":", length)
    if colon == NULL:
        return address_parse(text, length, out)
    if memchr(colon + 1, c":", <size_t>(text + length - colon - 1)) != NULL:
        return bare_v6 and address_parse(text, length, out)
    return sound_port(colon + 1, <uint32_t>(text + length - colon - 1)) and address_parse(text, <uint32_t>(colon - text), out)


cdef bint previous_element(const uint8_t* data, uint32_t begin, uint32_t* end, bint quotes, Span* out) noexcept nogil:
    """The last comma-separated element of data[begin:end], end moved before it. Read from the right, so that nothing further left,
    an open quote for instance, can hide what the nearest hop wrote. False: none left."""
    cdef uint32_t p = end[0], escape
    cdef bint quoted = False
    if p < begin or p == 0xFFFFFFFFu:
        return False
    while p > begin and (quoted or data[p - 1] != c","):
        p -= 1
        if quotes and data[p] == c'"':
            escape = p
            while quoted and escape > begin and data[escape - 1] == c"\\":
                escape -= 1
            if not (p - escape) & 1:
                quoted = not quoted
    out.off = p
    out.len = end[0] - p
    end[0] = p - 1 if p > begin else 0xFFFFFFFFu
    while out.len and (data[out.off] == c" " or data[out.off] == c"\t"):
        out.off += 1
        out.len -= 1
    while out.len and (data[out.off + out.len - 1] == c" " or data[out.off + out.len - 1] == c"\t"):
        out.len -= 1
    return True


cdef uint32_t read_value(const uint8_t* p, const uint8_t* end, uint8_t* value, uint32_t* value_len) noexcept nogil:
    """Token or quoted-string at p, unescaped, its first NODE_BYTES_MAX + 1 bytes kept. Returns bytes taken, 0: neither."""
    cdef const uint8_t* start = p
    cdef uint32_t n = 0
    if p < end and p[0] == c'"':
        p += 1
        while p < end and p[0] != c'"':
            if p[0] == c"\\":
                p += 1
                if p == end:
                    return 0
            if n <= NODE_BYTES_MAX:
                value[n] = p[0]
                n += 1
            p += 1
        if p == end:
            return 0
        p += 1
    else:
        while p < end and TOKEN[p[0]]:
            if n <= NODE_BYTES_MAX:
                value[n] = p[0]
                n += 1
            p += 1
    value_len[0] = n
    return <uint32_t>(p - start)


cdef bint sound_scheme(const uint8_t* text, uint32_t length) noexcept nogil:
    """RFC 3986 3.1."""
    cdef uint32_t i
    if not 1 <= length <= SCHEME_BYTES_MAX or not c"a" <= fold(text[0]) <= c"z":
        return False
    for i in range(1, length):
        if not (c"a" <= fold(text[i]) <= c"z" or c"0" <= text[i] <= c"9" or text[i] == c"+" or text[i] == c"-" or text[i] == c"."):
            return False
    return True


cdef bint sound_authority(const uint8_t* text, uint32_t length) noexcept nogil:
    cdef uint32_t host_len, port
    return parse_authority(text, length, &host_len, &port)


cdef int element_pair(const uint8_t* name, uint32_t length) noexcept nogil:
    """A pair that is read here, as a bit of its own; 0: another."""
    return 1 if folds_to(name, length, "for") else 2 if folds_to(name, length, "proto") else 4 if folds_to(name, length, "host") else 0


cdef bint parse_forwarded(const uint8_t* data, Span element, Address* out, Arrival* arrival) noexcept nogil:
    """One forwarded-element (RFC 7239 4): all pairs well-formed, one `for`, no other of them twice. proto and host that are not sound, or
    are written with escapes, are none."""
    cdef const uint8_t* p = data + element.off
    cdef const uint8_t* end = p + element.len
    cdef const uint8_t* name
    cdef uint8_t value[65]
    cdef uint32_t value_len = 0, taken, quotes
    cdef int pair, found = 0
    cdef Span inside
    memset(arrival, 0, sizeof(Arrival))
    while p < end:
        name = p
        while p < end and TOKEN[p[0]]:
            p += 1
        if p == name or p == end or p[0] != c"=":
            return False
        pair = element_pair(name, <uint32_t>(p - name))
        p += 1
        taken = read_value(p, end, value, &value_len)
        if taken == 0 or found & pair:
            return False
        quotes = p[0] == c'"'
        inside.off = <uint32_t>(p - data) + quotes
        inside.len = taken - 2 * quotes
        p += taken
        found |= pair
        if pair == 1 and not parse_node(value, value_len, False, out):
            return False
        if pair == 2 and sound_scheme(data + inside.off, inside.len):
            arrival.proto = inside
        if pair == 4 and sound_authority(data + inside.off, inside.len):
            arrival.host = inside
        while p < end and (p[0] == c" " or p[0] == c"\t"):
            p += 1
        if p < end:
            if p[0] != c";":
                return False
            p += 1
            while p < end and (p[0] == c" " or p[0] == c"\t"):
                p += 1
    return found & 1 != 0


cdef uint32_t identity_hops(const uint8_t* data, const RequestHead* head, const Prefixes* trusted, const Address* peer,
                            Address* hops, Arrival* arrival) noexcept nogil:
    cdef int32_t i
    cdef uint32_t end, n = 0
    cdef uint8_t ident
    cdef Span element
    cdef Arrival said
    cdef bint readable
    if trusted == NULL or prefixes_find(trusted, peer) == 0:
        return 0
    ident = HEADER_X_FORWARDED_FOR if head.first[HEADER_X_FORWARDED_FOR] >= 0 else HEADER_FORWARDED
    if head.first[ident] < 0:
        return 0
    i = head.header_count - 1
    while i >= head.first[ident]:
        if head.headers[i].id == ident:
            end = head.headers[i].value_off + head.headers[i].value_len
            while previous_element(data, head.headers[i].value_off, &end, ident == HEADER_FORWARDED, &element):
                if ident == HEADER_FORWARDED:
                    readable = parse_forwarded(data, element, &hops[n], &said)
                else:
                    readable = parse_node(data + element.off, element.len, True, &hops[n])
                if not readable:
                    return n
                if arrival != NULL and ident == HEADER_FORWARDED:
                    arrival[0] = said
                n += 1
                if n == CHAIN_HOPS_MAX or prefixes_find(trusted, &hops[n - 1]) == 0:
                    return n
        i -= 1
    return n


cdef Span first_value(const RequestHead* head, uint8_t ident) noexcept nogil:
    cdef int16_t i = head.first[ident]
    cdef Span out
    out.off = head.headers[i].value_off if i >= 0 else 0
    out.len = head.headers[i].value_len if i >= 0 else 0
    return out


cdef int identity_chain(const uint8_t* data, const RequestHead* head, const Prefixes* trusted, const Address* peer, int proof,
                        Address* client, Arrival* arrival) noexcept nogil:
    cdef Address hops[CHAIN_HOPS_MAX]
    cdef uint32_t n
    memset(arrival, 0, sizeof(Arrival))
    n = identity_hops(data, head, trusted, peer, hops, arrival)
    client[0] = hops[n - 1] if n else peer[0]
    if n == 0:
        return proof
    if arrival.proto.len == 0:
        arrival.proto = first_value(head, HEADER_X_FORWARDED_PROTO)
    if arrival.host.len == 0:
        arrival.host = first_value(head, HEADER_X_FORWARDED_HOST)
    return PROOF_CHAIN
