# HTTP/2 towards clients (RFC 9113), by nghttp2 (>= 1.50): framing, HPACK, flow control and priorities (RFC 9218) are its work. To the
# engine each stream is a client of its own, whose wire is HTTP/1.1: its head is put together, judged and refused as any other, its body
# comes as that framing says, and what is written to it becomes HEADERS and DATA. So there is one path for every version of HTTP.
cdef enum:
    HTTP2_PREFACE_BYTES = 24
    HTTP2_TOLD_BYTES = 14       # of it: the parser of HTTP/1.1 would wait for more of fewer
    STREAMS_MAX = 1000          # a connection's concurrent streams at most, whatever is configured
    FRAMES_BYTES = 131072       # frames put together for one write
    FRAME_BYTES_MAX = 16393     # one of ours: SETTINGS_MAX_FRAME_SIZE stays what it is at first, and 9 bytes before it
    HTTP2_READ_BYTES = 65536    # read from a socket at once: what comes with it has to find buffers
    HTTP2_ROUNDS = 8            # of sending and stepping in one pass
    HTTP2_STREAM_WINDOW = 131072        # bytes of a body that a stream may have here (RFC 9113 5.2)
    HTTP2_CONNECTION_WINDOW = 1048576   # and all streams of a connection together
    HTTP2_SESSION_BYTES_MAX = 1048576   # of nghttp2's own memory, a connection
    HTTP2_FIELDS_MAX = 132      # HEADERS_MAX, and the pseudo-headers
    HTTP2_ANSWER_FIELDS_MAX = 256       # HEADERS_MAX, EDITS_MAX, and ours
    HTTP2_LIST_BYTES_MAX = 131072       # a decoded field section; beyond, the connection ends at once
    HTTP2_PRINT_BYTES = 480     # canonical text of the fingerprint
    FLUSH_BYTES = 16384         # of a body: enough for a frame, not left to the end of the pass

    # Frames that cost us more than their sender, each with an allowance (CALM in http2_calm.pyx).
    CALM_RESETS = 0             # streams that ended before their answer, whoever reset them (CVE-2023-44487, CVE-2025-8671), or cannot be
    CALM_PINGS = 1
    CALM_SETTINGS = 2
    CALM_PRIORITIES = 3         # PRIORITY and PRIORITY_UPDATE
    CALM_EMPTY = 4              # DATA without a byte that ends nothing
    CALM_WINDOWS = 5            # WINDOW_UPDATE, beyond what our own DATA explains
    CALM_UNKNOWN = 6            # types that nobody has to know, and GOAWAY
    CALM_BOMBS = 7              # field sections that decode to more than a head may have
    CALM_OVER = 8               # frames of streams that are over: what was on its way, and RST_STREAM, as some clients answer to that
    CALM_KINDS = 9

    ASK_CLOSED = 1              # whether the frame that begins is of a stream that is over
    ASK_PRIORITY = 2            # what a PRIORITY frame says
    ASK_PRINT = 3               # the first field section has ended: the fingerprint is complete

    STUCK_NS = 800000000        # how long a stream's window may stay shut before the stream counts as held
    STUCK_BYTES = 1024          # what a stream that counts as held has taken at most
    STUCK_STREAMS_MAX = 8       # of one connection
    RESETS_KEPT = 16
    CONTINUATIONS_MAX = 8       # frames of one field section, after the first

cdef enum:
    SPARE_STEP_BYTES = 64       # memory for sessions comes in multiples of it
    SPARE_KINDS = 17            # spares of up to 1 KiB are kept

# What one session of nghttp2 has allocated.
cdef struct SessionMemory:
    nghttp2_mem calls
    Core* engine
    uint64_t nbytes

# A stream: a client whose socket is a part of its connection. Its queue `out` holds HTTP/1.1 heads, then the body as it is.
cdef struct Stream:
    Client c
    Http2* session
    Stream* prev                # of the connection
    Stream* next
    Stream* step_prev           # has something to do
    Stream* step_next
    int32_t id                  # 0: nghttp2 has closed it
    uint8_t stepping
    uint8_t chunked             # its body is handed on in chunks
    uint8_t connect             # it asks for a tunnel: a 2xx says that this is open
    uint8_t ended               # the client has said all
    uint8_t told                # and the reader of the body knows
    uint8_t headed              # the final head is on its way
    uint8_t holding             # counted in Http2.holding
    uint8_t deaf                # what the client still sends of its body is not wanted
    uint8_t closing             # nothing more will be written: a tunnel's way down has ended
    uint64_t taken              # bytes of DATA sent
    uint64_t mark               # Http2.sent, when it was first blocked
    Queue body                  # what the client has sent and nobody has read
    Buffer* trailers            # of the answer, behind its body; NULL: none

# One connection.
cdef struct Http2:
    nghttp2_session* session
    SessionMemory memory
    Core* engine
    Client* client
    Stream* streams
    Stream* step_head
    Stream* step_tail
    Http2* due_prev             # has frames to send at the end of the pass
    Http2* due_next
    uint8_t due
    uint8_t busy                # inside nghttp2: nothing may be freed
    uint8_t preface             # bytes of the client's preface still to come
    uint8_t settled             # its SETTINGS came
    uint8_t leaving             # 1: told that we go, 2: told what was the last request
    uint8_t broken              # nghttp2 ends it for what the client did
    uint8_t failed              # nghttp2 gave up, or we did: only GOAWAY may follow
    uint8_t windowed            # the client has ever widened the connection's window
    uint8_t continuations       # of the field section that is coming in
    uint8_t head_last           # the frame that is coming in ends it
    uint8_t reason              # HTTP2_* of what ended it
    uint32_t code               # of GOAWAY
    uint32_t resets[16]         # RESETS_KEPT: streams that we reset last
    uint32_t reset_count
    uint32_t resets_counted     # before they were sent
    uint8_t skipped             # the client passed over a stream's number
    uint32_t last_id            # of the last request
    uint32_t holding            # of these, with bytes that were not sent
    uint32_t frame_left         # payload of the frame that is coming in
    uint8_t frame_head[14]      # and what a PRIORITY frame says
    uint8_t frame_want
    uint8_t asking              # ASK_*: what is asked when nghttp2 has read so far
    uint8_t frame_have
    uint8_t too_large           # the field section that is coming in is more than a head may have
    uint64_t head_ns            # since when it is coming in; 0: none is
    uint64_t leave_ns
    uint64_t idle_ns            # since when there is no stream
    uint64_t sent               # bytes of frames
    uint64_t arriving_ns        # when some of these had not arrived
    uint64_t frames_owed        # WINDOW_UPDATEs that our DATA explains
    uint64_t calm_ns[9]         # CALM_KINDS: theoretical arrival times (GCRA)
    uint32_t list_bytes         # decoded, of the field section that is coming in
    uint32_t fields
    Buffer* head                # its fields: lengths of name and value (uint16 each), name, value
    uint64_t fingerprint        # of how the client speaks HTTP/2; 0: not complete
    uint16_t print_len
    uint8_t print_done
    uint8_t print_text[480]     # HTTP2_PRINT_BYTES

# A connection to an origin that speaks HTTP/2.
cdef struct Uplink:
    nghttp2_session* session
    SessionMemory memory
    Core* engine
    Queue text                  # the answer, as HTTP/1.1
    Queue wire                  # frames that the socket has not taken
    Buffer* fields              # as Http2.head, of an answer
    Buffer* trailers
    uint32_t fields_count
    uint32_t list_bytes
    uint32_t unread             # bytes of DATA that its window has not been given back
    int32_t id                  # of the request; 0: none, or it is over
    uint8_t too_large
    uint8_t headed              # the request has been begun
    uint8_t final               # the final head has come
    uint8_t chunked             # the answer has no length
    uint8_t bodyless
    uint8_t ended               # all of it came
    uint8_t failed              # the stream or the session is broken
    uint8_t leaving             # the origin takes no more requests here

# The connection to an origin speaks HTTP/2 from now on. False: no room.
cdef bint uplink_open(Core* e, Origin* o) noexcept nogil
cdef void uplink_free(Core* e, Origin* o) noexcept nogil
cdef bint uplink_rest(Core* e, Origin* o) noexcept nogil
# As origin_recv, origin_write, origin_flush.
cdef ssize_t uplink_recv(Core* e, Origin* o, void* data, uint64_t n) noexcept nogil
cdef int uplink_write(Core* e, Origin* o, const uint8_t* data, uint64_t n) noexcept nogil
cdef int uplink_flush(Core* e, Origin* o) noexcept nogil

# The connection speaks HTTP/2 from its next byte on; what its inbox holds is read first. False: no room, and it is closed.
cdef bint http2_open(Core* e, Client* c) noexcept nogil
# Events came for the connection.
cdef void http2_step(Core* e, Client* c) noexcept nogil
cdef void http2_timeout(Core* e, Client* c) noexcept nogil
# At the end of a pass: frames go out, a write a connection.
cdef void http2_serve(Core* e) noexcept nogil
cdef bint http2_waits(const Core* e) noexcept nogil
# One more of a kind (CALM_*); where that is one too many, the connection ends soon.
cdef void calm_take(Http2* h, uint32_t kind) noexcept nogil
# Ends the connection for what its client did: GOAWAY, a line in the log, an offence of its source.
cdef void http2_refuse(Core* e, Http2* h, uint8_t reason) noexcept nogil
# The connection goes; its streams end as aborted.
cdef void http2_free(Core* e, Client* c) noexcept nogil
# Drains: tells the client so (GOAWAY). True: nothing of it is left, and it may be closed.
cdef bint http2_leave(Core* e, Client* c) noexcept nogil
cdef inline bint is_stream(const Client* c) noexcept nogil:
    return c.h.kind == HANDLE_STREAM
# The connection's client: itself, where it is no stream.
cdef Client* client_root(Client* c) noexcept nogil
# The doors to a stream, as client_recv, client_write and client_flush.
cdef ssize_t stream_recv(Core* e, Stream* s, void* data, uint64_t n) noexcept nogil
cdef int stream_send(Core* e, Stream* s, const uint8_t* data, uint64_t n) noexcept nogil
cdef int stream_flush(Core* e, Stream* s) noexcept nogil
# No more bytes follow those that are queued.
cdef void stream_end(Core* e, Stream* s) noexcept nogil
# Nobody will read its body: what is there goes, and so does what comes.
cdef void stream_deafen(Core* e, Stream* s) noexcept nogil
# The exchange is over and everything was given.
cdef void stream_done(Core* e, Stream* s) noexcept nogil
# Broken off: reset, where nghttp2 still has it.
cdef void stream_close(Core* e, Stream* s) noexcept nogil
# It waits for its connection, and not for its own window.
cdef bint stream_waits(const Stream* s) noexcept nogil
# What the client took of a stream since that was blocked, as its deadlines have to see it.
cdef uint64_t stream_progress(const Stream* s) noexcept nogil
# It is us who let nothing of any body pass: what came for other streams was not taken.
cdef bint stream_shut_out(const Client* c) noexcept nogil
# The stream's window has been shut for long; with many of these the connection is ended.
cdef bint stream_held(Core* e, Stream* s) noexcept nogil
