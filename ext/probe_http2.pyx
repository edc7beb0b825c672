# Python faces of what turns HTTP/2 into HTTP/1.1 and back, and of the look at frames, for tests. No behaviour of its own.

CALM_NAMES = ("resets", "pings", "settings", "priorities", "empty", "windows", "unknown", "bombs")     # by CALM_*


cdef class ProbeHttp2:
    """A connection without a socket, and one stream of it."""
    cdef Core* core
    cdef Http2* h
    cdef Stream* s

    def __cinit__(self):
        self.core = <Core*>scrubber_pages(sizeof(Core))
        self.h = <Http2*>calloc(1, sizeof(Http2))
        self.s = <Stream*>calloc(1, sizeof(Stream))
        if self.core == NULL or self.h == NULL or self.s == NULL:
            raise MemoryError
        self.h.head = <Buffer*>calloc(1, sizeof(Buffer))
        self.s.c.inbox = <Buffer*>calloc(1, sizeof(Buffer))
        self.core.fields = <nghttp2_nv*>calloc(HTTP2_ANSWER_FIELDS_MAX, sizeof(nghttp2_nv))
        if self.h.head == NULL or self.s.c.inbox == NULL or self.core.fields == NULL:
            raise MemoryError
        self.h.engine = self.core
        self.h.preface = HTTP2_PREFACE_BYTES
        self.h.frame_want = 9
        self.core.now_ns = 1

    def __dealloc__(self):
        if self.s != NULL:
            free(self.s.c.inbox)
        if self.h != NULL:
            free(self.h.head)
        if self.core != NULL:
            free(self.core.fields)
            munmap(self.core, sizeof(Core))
        free(self.s)
        free(self.h)

    def request(self, list fields, bint last=False):
        """(outcome, head, whether its body is handed on in chunks): (name, value) fields as HTTP/1.1; "ok", or what is wrong with them."""
        cdef bytes name, value
        cdef uint8_t* one
        cdef uint8_t* other
        cdef uint8_t wrong
        cdef bint counted
        self.h.list_bytes = self.h.fields = 0
        self.h.too_large = self.h.reason = 0
        self.h.head.start = self.h.head.end = 0
        for name, value in fields:
            one, other = probe_copy(name), probe_copy(value)
            counted = field_counts(self.h, <size_t>len(name), <size_t>len(value))
            if counted:
                field_take(self.h, one, <uint32_t>len(name), other, <uint32_t>len(value))
            free(one)
            free(other)
            if not counted:
                return http1_reason(self.h.reason).decode(), b"", False
        self.s.ended = last
        self.s.chunked = 0
        wrong = head_compose(self.core, self.h, self.s)
        if wrong:
            return http1_reason(wrong).decode(), b"", False
        return "ok", (<const char*>self.s.c.inbox.data)[:self.s.c.inbox.end], bool(self.s.chunked)

    def response(self, bytes head):
        """Fields behind :status of a head as the engine writes it."""
        cdef uint8_t* p = probe_copy(head)
        cdef uint32_t i, n
        self.core.head = p
        n = head_fields(self.core, <uint32_t>len(head), <uint32_t>(head.index(b"\n") + 1), 1)
        found = [((<const char*>self.core.fields[i].name)[:self.core.fields[i].namelen],
                  (<const char*>self.core.fields[i].value)[:self.core.fields[i].valuelen]) for i in range(1, n)]
        self.core.head = NULL
        free(p)
        return found

    def look(self, bytes data):
        """(reason, places behind which nghttp2 has to be asked): one piece of what a client sends, its preface first."""
        cdef uint8_t* p = probe_copy(data)
        cdef uint32_t at = 0
        asked = []
        while at < <uint32_t>len(data) and self.h.reason == 0:
            at += calm_look(self.h, p + at, <uint32_t>len(data) - at)
            if self.h.asking == ASK_CLOSED:
                asked.append(at)
            elif self.h.asking:
                frame_asked(self.h)
        free(p)
        return http1_reason(self.h.reason).decode() if self.h.reason else "", asked

    def looked(self):
        """What the look at frames knows: the last request's stream, whether numbers were passed over, whether a field section is coming
        in."""
        return self.h.last_id, bool(self.h.skipped), self.h.head_ns != 0

    def take(self, str kind, uint64_t now_ns):
        """One frame more of a kind. The reason why that is one too many; empty: it is not."""
        self.h.reason = 0
        self.core.now_ns = now_ns
        calm_take(self.h, <uint32_t>CALM_NAMES.index(kind))
        return http1_reason(self.h.reason).decode() if self.h.reason else ""

    def sent(self, list stream_ids):
        """These streams were reset by us, in this order."""
        cdef uint32_t stream_id
        for stream_id in stream_ids:
            self.h.resets[self.h.reset_count % RESETS_KEPT] = stream_id
            self.h.reset_count += 1

    def reset_by_us(self, uint32_t stream_id):
        return bool(reset_by_us(self.h, stream_id))
