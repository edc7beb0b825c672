# Who a request is from: the trusted chain walked hop by hop, and the account that it presents (account.pyx). Contract in identity.pxd.
# Owns nothing. Invariants: only what a trusted hop wrote is ever believed; what cannot be read ends the walk, it is never skipped; an
# address comes out with IPv4-mapped read as IPv4.
#
# X-Forwarded-For is walked where the request has one, Forwarded only where it has none: nearly every proxy appends to the former and
# passes the latter through, so that a client could choose its own name in it. A proxy that writes only Forwarded must remove the other.
cdef enum:
    NODE_BYTES_MAX = 64         # a node name with its port


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


cdef bint parse_forwarded(const uint8_t* p, uint32_t length, Address* out) noexcept nogil:
    """The `for` of one forwarded-element (RFC 7239 4): exactly one, and all pairs well-formed."""
    cdef const uint8_t* end = p + length
    cdef const uint8_t* name
    cdef uint8_t value[65]
    cdef uint32_t value_len = 0, taken, found = 0
    cdef bint is_for
    while p < end:
        name = p
        while p < end and TOKEN[p[0]]:
            p += 1
        if p == name or p == end or p[0] != c"=":
            return False
        is_for = folds_to(name, <uint32_t>(p - name), "for")
        p += 1
        taken = read_value(p, end, value, &value_len)
        if taken == 0:
            return False
        p += taken
        if is_for:
            found += 1
            if found > 1 or not parse_node(value, value_len, False, out):
                return False
        while p < end and (p[0] == c" " or p[0] == c"\t"):
            p += 1
        if p < end:
            if p[0] != c";":
                return False
            p += 1
            while p < end and (p[0] == c" " or p[0] == c"\t"):
                p += 1
    return found == 1


cdef uint32_t identity_hops(const uint8_t* data, const RequestHead* head, const Prefixes* trusted, const Address* peer,
                            Address* hops) noexcept nogil:
    cdef int32_t i
    cdef uint32_t end, n = 0
    cdef uint8_t ident
    cdef Span element
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
                    readable = parse_forwarded(data + element.off, element.len, &hops[n])
                else:
                    readable = parse_node(data + element.off, element.len, True, &hops[n])
                if not readable:
                    return n
                n += 1
                if n == CHAIN_HOPS_MAX or prefixes_find(trusted, &hops[n - 1]) == 0:
                    return n
        i -= 1
    return n


cdef int identity_chain(const uint8_t* data, const RequestHead* head, const Prefixes* trusted, const Address* peer, int proof,
                        Address* client) noexcept nogil:
    cdef Address hops[CHAIN_HOPS_MAX]
    cdef uint32_t n = identity_hops(data, head, trusted, peer, hops)
    client[0] = hops[n - 1] if n else peer[0]
    return PROOF_CHAIN if n else proof
