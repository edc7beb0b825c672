# Upgrades (RFC 9110 7.8) and what they become: after the origin's 101 bytes flow both ways until either side, a limit or a block ends it.
# Asked for in this head, and let through by the area? Sets Exchange.upgrade and counts the tunnel. 0, or the status to answer with.
cdef uint16_t tunnel_ask(Core* e, Exchange* x, const Facts* f) noexcept nogil
# The 101 in e.response grants just what was asked for.
cdef bint tunnel_granted(Core* e, Exchange* x, const uint8_t* data) noexcept nogil
# From here on the exchange is a tunnel: data holds the 101 and what the origin sent behind it. Afterwards the client may be closed.
cdef void tunnel_begin(Core* e, Exchange* x, const uint8_t* data, uint32_t head_bytes, uint32_t n) noexcept nogil
cdef void tunnel_step(Core* e, Exchange* x) noexcept nogil
cdef void tunnel_timeout(Core* e, Exchange* x) noexcept nogil
# The exchange ends: what was counted is given back.
cdef void tunnel_uncount(Core* e, Exchange* x) noexcept nogil
cdef const char* tunnel_end_text(uint8_t how) noexcept nogil
# WebSocket frames (RFC 6455 5.2) as they pass: n bytes more. True: some of them belong to a message, not to a ping, pong or close.
cdef bint frames_feed(Frames* f, const uint8_t* data, uint64_t n) noexcept nogil
