# Python faces of address, prefixes, http1, fingerprint and identity, for tests and tools. No behaviour of its own.
# Bytes are copied into exact allocations, so that a sanitizer sees the first byte read past the end.
from libc.stdlib cimport free, malloc


cdef uint8_t* probe_copy(bytes data) except NULL:
    cdef size_t n = <size_t>len(data)
    cdef uint8_t* p = <uint8_t*>malloc(n if n else 1)
    if p == NULL:
        raise MemoryError
    if n:
        memcpy(p, <const char*>data, n)
    return p


cdef Address probe_address(bytes packed) except *:
    cdef Address a
    if len(packed) != 16:
        raise ValueError("an address is 16 bytes; IPv4 is held IPv4-mapped")
    memcpy(a.bytes, <const char*>packed, 16)
    return a


def probe_address_parse(bytes text):
    """16 bytes, or None where text is no address."""
    cdef Address a
    cdef uint8_t* p = probe_copy(text)
    cdef bint ok = address_parse(p, <uint32_t>len(text), &a)
    free(p)
    return (<const char*>a.bytes)[:16] if ok else None


def probe_address_format(bytes packed):
    cdef Address a = probe_address(packed)
    cdef uint8_t* p = <uint8_t*>malloc(46)
    if p == NULL:
        raise MemoryError
    cdef uint32_t n = address_format(&a, p)
    text = (<const char*>p)[:n]
    free(p)
    return text


def probe_address_mask(bytes packed, int plen):
    cdef Address a = probe_address(packed)
    address_mask(&a, plen)
    return (<const char*>a.bytes)[:16]


def probe_address_client(bytes packed):
    cdef Address a = probe_address(packed)
    address_client(&a, &a)
    return (<const char*>a.bytes)[:16]


def probe_address_is_v4(bytes packed):
    cdef Address a = probe_address(packed)
    return address_is_v4(&a)


cdef class ProbePrefixes:
    """A loaded prefix image. ValueError: the loader refused it."""
    cdef uint8_t* image
    cdef Prefixes table

    def __cinit__(self, bytes image):
        self.image = probe_copy(image)
        if not prefixes_load(self.image, <uint64_t>len(image), &self.table):
            raise ValueError("prefix image refused: magic, version, sizes or order")

    def __dealloc__(self):
        free(self.image)

    def find(self, bytes packed):
        cdef Address a = probe_address(packed)
        return prefixes_find(&self.table, &a)


HTTP1_OUTCOMES = {i: http1_reason(i).decode() for i in range(HTTP1_REASONS)}
HTTP1_STATUS = {http1_reason(i).decode(): http1_status(i) for i in range(2, HTTP1_REASONS)}


cdef object probe_span(const uint8_t* data, Span s):
    return (<const char*>data)[s.off:s.off + s.len]


cdef list probe_headers(const uint8_t* data, const Header* headers, uint32_t count):
    """(name, value, id, hop) in order."""
    cdef uint32_t i
    return [((<const char*>data)[headers[i].name_off:headers[i].name_off + headers[i].name_len],
             (<const char*>data)[headers[i].value_off:headers[i].value_off + headers[i].value_len],
             headers[i].id, bool(headers[i].flags & HEADER_HOP)) for i in range(count)]


cdef Http1Limits probe_limits(tuple limits):
    cdef Http1Limits out
    out.line_bytes_max, out.head_bytes_max, out.headers_max = limits
    return out


def probe_request(bytes data, tuple limits=(8192, 16384, 128), cuts=()):
    """(outcome, fields): the head in data, given whole or first as data[:cut] for each cut. Fields are None unless the outcome is "ok"."""
    cdef Http1Limits caps = probe_limits(limits)
    cdef RequestHead head
    cdef uint32_t scan = 0
    cdef int rc = HTTP1_MORE
    cdef uint8_t* p = NULL
    for cut in [*cuts, len(data)]:
        p = probe_copy(data[:cut])
        rc = request_parse(p, <uint32_t>cut, &scan, &caps, &head)
        if rc != HTTP1_MORE or cut == len(data):
            break
        free(p)
    fields = None
    if rc == HTTP1_OK:
        fields = {
            "method": head.method, "method_text": probe_span(p, head.method_text), "minor": head.minor,
            "target": probe_span(p, head.target),
            "path": probe_span(p, head.path), "query": probe_span(p, head.query), "host": probe_span(p, head.host),
            "authority": probe_span(p, head.authority), "body": head.body, "content_length": head.content_length,
            "keep_alive": head.keep_alive, "expect_continue": head.expect_continue, "upgrade": head.upgrade,
            "head_bytes": head.head_bytes, "headers": probe_headers(p, head.headers, head.header_count),
            "first": [head.first[i] for i in range(HEADER_IDS)],
        }
    free(p)
    return HTTP1_OUTCOMES[rc], fields


def probe_response(bytes data, int request_method=METHOD_GET, tuple limits=(8192, 16384, 128), cuts=()):
    """(outcome, fields) of a response head, as probe_request."""
    cdef Http1Limits caps = probe_limits(limits)
    cdef ResponseHead head
    cdef uint32_t scan = 0
    cdef int rc = HTTP1_MORE
    cdef uint8_t* p = NULL
    for cut in [*cuts, len(data)]:
        p = probe_copy(data[:cut])
        rc = response_parse(p, <uint32_t>cut, &scan, &caps, <uint8_t>request_method, &head)
        if rc != HTTP1_MORE or cut == len(data):
            break
        free(p)
    fields = None
    if rc == HTTP1_OK:
        fields = {
            "status": head.status, "minor": head.minor, "reason": probe_span(p, head.reason), "body": head.body,
            "content_length": head.content_length, "has_content_length": head.has_content_length, "keep_alive": head.keep_alive,
            "upgrade": head.upgrade, "head_bytes": head.head_bytes, "headers": probe_headers(p, head.headers, head.header_count),
        }
    free(p)
    return HTTP1_OUTCOMES[rc], fields


def probe_chunked(list pieces):
    """(outcome, body, bytes consumed): the pieces fed in order. Outcome: more, end, bad_chunk, bad_trailer."""
    cdef Chunked c
    cdef Span run
    cdef uint32_t consumed, at
    cdef uint8_t* p = NULL
    cdef int rc = CHUNKED_MORE
    cdef uint64_t total = 0
    body = b""
    chunked_init(&c)
    for piece in pieces:
        p = probe_copy(piece)
        at = 0
        while True:
            rc = chunked_feed(&c, p + at, <uint32_t>len(piece) - at, &consumed, &run)
            if rc == CHUNKED_DATA:
                body += piece[at + run.off:at + run.off + run.len]
            at += consumed
            if rc != CHUNKED_DATA:
                break
        free(p)
        total += at
        if rc != CHUNKED_MORE:
            break
    outcome = {CHUNKED_MORE: "more", CHUNKED_END: "end"}.get(rc, "bad_trailer" if c.trailer_seen else "bad_chunk")
    return outcome, body, total


def probe_path(bytes path, int cap=PATH_BYTES_MAX):
    cdef Span span
    span.off = 0
    span.len = <uint32_t>len(path)
    cdef uint8_t* p = probe_copy(path)
    cdef uint8_t* out = <uint8_t*>malloc(cap if cap else 1)
    if out == NULL:
        free(p)
        raise MemoryError
    cdef uint32_t n = path_normalise(p, span, out, <uint32_t>cap)
    text = (<const char*>out)[:n]
    free(p)
    free(out)
    return text


cdef uint8_t* probe_head(bytes data, RequestHead* head) except NULL:
    """A copy of data, parsed: the caller frees it. ValueError: not a sound request head."""
    cdef Http1Limits caps = probe_limits((16384, 16384, 128))
    cdef uint32_t scan = 0
    cdef uint8_t* p = probe_copy(data)
    cdef int rc = request_parse(p, <uint32_t>len(data), &scan, &caps, head)
    if rc != HTTP1_OK:
        free(p)
        raise ValueError(f"not a sound request head: {HTTP1_OUTCOMES[rc]}")
    return p


def probe_fingerprint(bytes data):
    """Text form of a request head's fingerprint."""
    cdef RequestHead head
    cdef uint8_t out[19]
    cdef uint8_t* p = probe_head(data, &head)
    cdef uint32_t n = fingerprint_text(fingerprint_head(p, &head, <uint8_t>(c"0" + head.minor)), out)
    free(p)
    return (<const char*>out)[:n].decode()


def probe_chain(bytes data, ProbePrefixes trusted, bytes peer, int proof=PROOF_SOCKET):
    """(proof, 16 bytes of the client, proto, host)."""
    cdef RequestHead head
    cdef Address a = probe_address(peer), client
    cdef Arrival arrival
    cdef uint8_t* p = probe_head(data, &head)
    cdef int proven = identity_chain(p, &head, NULL if trusted is None else &trusted.table, &a, proof, &client, &arrival)
    proto, host = probe_span(p, arrival.proto), probe_span(p, arrival.host)
    free(p)
    return proven, (<const char*>client.bytes)[:16], proto, host


def probe_accepts_json(bytes data, bint whole=True):
    """Whether the client is answered in JSON; whole False: of a head that was refused or is not whole."""
    cdef RequestHead head
    cdef Http1Limits caps = probe_limits((16384, 16384, 128))
    cdef uint8_t* p = probe_head(data, &head) if whole else probe_copy(data)
    if not whole:
        request_fields(p, <uint32_t>len(data), &caps, &head)
    found = bool(accepts_json(p, &head))
    free(p)
    return found


def probe_account(bytes data, int kind, bytes name=b"", int cap=128):
    """The account that a request head presents, b"" for none."""
    cdef RequestHead head
    cdef uint8_t* p = probe_head(data, &head)
    cdef uint8_t* out = <uint8_t*>malloc(cap if cap else 1)
    if out == NULL:
        free(p)
        raise MemoryError
    cdef uint32_t n = identity_account(p, &head, <uint8_t>kind, name, <uint32_t>len(name), out, <uint32_t>cap)
    text = (<const char*>out)[:n]
    free(p)
    free(out)
    return text


def probe_find(bytes data, bytes name, int start=0):
    """Index of a header of a sound request head by name; -1: none."""
    cdef RequestHead head
    cdef uint8_t* p = probe_head(data, &head)
    cdef int32_t i = http1_find(p, head.headers, head.header_count, <uint32_t>start, name, <uint32_t>len(name),
                                http1_name_hash(name, <uint32_t>len(name)))
    free(p)
    return i
