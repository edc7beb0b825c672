# What is forwarded is re-serialised from the parsed form, in both directions; the other side's bytes are never copied through as a head.
# The request as the origin gets it, into x.head. 0, or the status to answer with.
cdef uint16_t forward_request(Core* e, Client* c, Exchange* x, const Facts* f) noexcept nogil
# The response head in e.response (over data) as the client gets it, queued. False: no room.
cdef bint forward_response(Core* e, Exchange* x, const uint8_t* data) noexcept nogil
# The 101 that grants an upgrade.
cdef bint forward_upgrade(Core* e, Exchange* x, const uint8_t* data) noexcept nogil
cdef bint forward_interim(Core* e, Exchange* x, const uint8_t* data) noexcept nogil
