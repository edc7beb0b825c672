# Strict HTTP/1.1 (RFC 9110, 9112): bytes in, spans out. Knows no socket, allocates nothing. What is ambiguous is refused, never repaired.
cdef enum:
    HTTP1_OK = 0
    HTTP1_MORE = 1              # not complete yet
    # Refusals, 2.. : one name each, for the log; http1_status() gives the answer (400, 413, 414, 416, 417, 431, 501, 505).
    HTTP1_BAD_METHOD = 2
    HTTP1_BAD_TARGET = 3
    HTTP1_BAD_VERSION = 4
    HTTP1_VERSION_UNSUPPORTED = 5
    HTTP1_BAD_LINE_END = 6
    HTTP1_BAD_HEADER_NAME = 7
    HTTP1_BAD_HEADER_VALUE = 8
    HTTP1_OBS_FOLD = 9
    HTTP1_BAD_HOST = 10
    HTTP1_MISSING_HOST = 11
    HTTP1_DUPLICATE_HOST = 12
    HTTP1_HOST_MISMATCH = 13
    HTTP1_BAD_CONTENT_LENGTH = 14
    HTTP1_LENGTH_AND_CHUNKED = 15
    HTTP1_BAD_TRANSFER_ENCODING = 16
    HTTP1_LINE_TOO_LONG = 17
    HTTP1_HEAD_TOO_LARGE = 18
    HTTP1_TOO_MANY_HEADERS = 19
    HTTP1_BAD_CHUNK = 20
    HTTP1_BAD_TRAILER = 21
    HTTP1_BAD_STATUS = 22       # responses
    HTTP1_BAD_CONNECTION = 23
    HTTP1_METHOD_REFUSED = 24   # CONNECT, TRACE
    HTTP1_BAD_EXPECT = 25
    HTTP1_BAD_UPGRADE = 26
    HTTP1_TOO_MANY_RANGES = 27
    HTTP1_BAD_PROXY_HEADER = 28  # before any HTTP: never answered
    HTTP1_PATH_TOO_LONG = 29    # as rules and routes see it
    # Before any HTTP: connections to a TLS port.
    HTTP1_PLAIN_HTTP = 30
    HTTP1_BAD_HELLO = 31
    HTTP1_UNKNOWN_NAME = 32
    HTTP1_TOO_MANY_HANDSHAKES = 33
    HTTP1_HANDSHAKE_FAILED = 34
    HTTP1_HANDSHAKE_LATE = 35
    # What ended an HTTP/2 connection.
    HTTP2_BROKEN = 36           # against RFC 9113: nghttp2 says so
    HTTP2_LATE = 37             # preface, or a field section
    HTTP2_RESETS = 38
    HTTP2_PINGS = 39
    HTTP2_SETTINGS = 40
    HTTP2_PRIORITIES = 41
    HTTP2_EMPTY = 42
    HTTP2_WINDOWS = 43
    HTTP2_UNKNOWN = 44
    HTTP2_HEADERS = 45
    HTTP2_CONTINUATIONS = 46
    HTTP2_HELD = 47
    HTTP1_REASONS = 48

    METHOD_OTHER = 0            # any other token, forwarded as it is
    METHOD_GET = 1
    METHOD_HEAD = 2
    METHOD_POST = 3
    METHOD_PUT = 4
    METHOD_DELETE = 5
    METHOD_OPTIONS = 6
    METHOD_PATCH = 7
    METHOD_TRACE = 8
    METHOD_CONNECT = 9

    BODY_NONE = 0
    BODY_LENGTH = 1
    BODY_CHUNKED = 2
    BODY_CLOSE = 3              # responses only: until the connection closes

    # Header ids: what the proxy itself reads or writes. HEADER_OTHER is passed on as it is.
    HEADER_OTHER = 0
    HEADER_HOST = 1
    HEADER_CONTENT_LENGTH = 2
    HEADER_TRANSFER_ENCODING = 3
    HEADER_CONNECTION = 4
    HEADER_KEEP_ALIVE = 5
    HEADER_PROXY_CONNECTION = 6
    HEADER_TE = 7
    HEADER_TRAILER = 8
    HEADER_UPGRADE = 9
    HEADER_EXPECT = 10
    HEADER_X_FORWARDED_FOR = 11
    HEADER_X_FORWARDED_PROTO = 12
    HEADER_X_FORWARDED_HOST = 13
    HEADER_FORWARDED = 14
    HEADER_COOKIE = 15
    HEADER_AUTHORIZATION = 16
    HEADER_USER_AGENT = 17
    HEADER_ACCEPT = 18
    HEADER_REFERER = 19
    HEADER_DATE = 20
    HEADER_SERVER = 21
    HEADER_X_REQUEST_ID = 22
    HEADER_VIA = 23
    HEADER_RANGE = 24
    HEADER_PROXY_AUTHORIZATION = 25
    HEADER_X_REAL_IP = 26
    HEADER_X_FORWARDED_PORT = 27
    HEADER_PROXY_AUTHENTICATE = 28
    HEADER_IDS = 29

    HEADER_HOP = 1              # Header.flags: hop-by-hop (RFC 9110 7.6.1), or named by Connection: never forwarded

cdef struct Header:             # 20 bytes
    uint32_t name_off
    uint32_t value_off          # without surrounding white space
    uint32_t value_len
    uint16_t name_len
    uint8_t id
    uint8_t flags
    uint32_t name_hash          # case-folded, for look-ups by name

cdef struct Http1Limits:
    uint32_t line_bytes_max
    uint32_t head_bytes_max
    uint32_t headers_max

cdef struct RequestHead:
    uint8_t method
    uint8_t minor               # HTTP/1.minor: 0 or 1
    uint8_t body                # BODY_NONE, BODY_LENGTH (Content-Length: 0 too), BODY_CHUNKED
    bint keep_alive
    bint expect_continue        # HTTP/1.1 and a body to wait for
    bint upgrade                # asks for an Upgrade (not yet granted by anyone); never in HTTP/1.0
    uint64_t content_length
    uint32_t head_bytes         # including the empty line
    Span method_text
    Span target                 # as sent; origin-form or '*' (absolute-form is reduced: target then is its path and query)
    Span path                   # of target, without the query
    Span query                  # without '?'; len 0 may be "no query" or an empty one
    Span host                   # of Host (or of absolute-form), without port, as sent (IPv6 in its brackets); len 0: HTTP/1.0 without one
    Span authority              # the same with its port
    uint16_t header_count
    int16_t first[29]           # HEADER_IDS: index of the first header with that id, -1: none
    Header headers[128]         # HEADERS_MAX

cdef struct ResponseHead:
    uint16_t status
    uint8_t minor
    uint8_t body                # BODY_*
    bint keep_alive             # the origin connection may be used again after this response
    bint upgrade                # 101
    uint64_t content_length     # BODY_LENGTH; also kept for HEAD and 304
    bint has_content_length
    uint32_t head_bytes
    Span reason
    uint16_t header_count
    int16_t first[29]
    Header headers[128]

# scan: how far the head was searched before (0 at first), so that a head that comes byte by byte is not searched again and again.
cdef int request_parse(const uint8_t* data, uint32_t length, uint32_t* scan, const Http1Limits* limits, RequestHead* out) noexcept nogil
cdef int response_parse(const uint8_t* data, uint32_t length, uint32_t* scan, const Http1Limits* limits, uint8_t request_method,
                        ResponseHead* out) noexcept nogil
# first, headers and header_count alone, of a head that was refused or is not whole: the fields before whatever is wrong with it. No such
# head has a meaning: only the form of its answer may follow from this.
cdef void request_fields(const uint8_t* data, uint32_t length, const Http1Limits* limits, RequestHead* out) noexcept nogil
# Ranges that all Range fields together ask for: what their commas part, empty ones included.
cdef uint32_t ranges_asked(const uint8_t* data, const RequestHead* head) noexcept nogil
cdef uint16_t http1_status(int reason) noexcept nogil
# The reason's name for the log ("bad_host"); a static string.
cdef const char* http1_reason(int reason) noexcept nogil

# Header.name_hash of a name in any case.
cdef uint32_t http1_name_hash(const uint8_t* name, uint32_t length) noexcept nogil
# Index of the first header from start on with that name (in any case), -1: none. name_hash: http1_name_hash of it.
cdef int32_t http1_find(const uint8_t* data, const Header* headers, uint32_t count, uint32_t start, const uint8_t* name, uint32_t length,
                        uint32_t name_hash) noexcept nogil

# Chunked transfer coding (RFC 9112 7.1): one state for either direction. Feed bytes; each call gives at most one run of data.
cdef struct Chunked:            # 32 bytes
    uint8_t state
    uint8_t trailer_seen        # the last chunk was seen: what is bad from here on is a trailer
    uint16_t line_bytes         # bytes of the present size line
    uint32_t trailer_bytes
    uint64_t remaining          # of the present chunk
    uint32_t name_hash          # of the present trailer's name
    uint32_t name_bytes
    uint64_t reserved

cdef enum:
    CHUNKED_MORE = 0            # all consumed, body not at its end
    CHUNKED_DATA = 1            # data[off:off+len] is body; call again with what is left
    CHUNKED_END = 2             # the body and its trailers are complete; bytes after consumed are the next message
    CHUNKED_BAD = 3
    # Trailers are checked and dropped (RFC 9110 6.5.1 allows it), bounded to CHUNKED_TRAILER_BYTES_MAX.
    CHUNKED_TRAILER_BYTES_MAX = 4096
    CHUNKED_LINE_BYTES_MAX = 256

cdef void chunked_init(Chunked* c) noexcept nogil
# consumed: bytes taken, the run included; at CHUNKED_BAD the bad byte's position. After CHUNKED_END or CHUNKED_BAD the answer stays.
cdef int chunked_feed(Chunked* c, const uint8_t* data, uint32_t length, uint32_t* consumed, Span* run) noexcept nogil

# Path for matching (RFC 3986 6.2.2): percent-decoded where safe, dot segments and repeated slashes removed, at most cap bytes.
# Only for matching: the origin gets the target as sent. Returns bytes written; cap: there may be more of it.
cdef uint32_t path_normalise(const uint8_t* data, Span path, uint8_t* out, uint32_t cap) noexcept nogil
