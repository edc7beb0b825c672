# Clients named by a PROXY header, in and out: who may name them, what follows from it, and the same said to an origin.
# Is the peer listed at its listener? Then a header is required of it; of anybody else none is ever read.
cdef bint proxy_listed(const Facts* f) noexcept nogil
# The header in the inbox, as far as it came. False: refused, and the client is closed.
cdef bint proxied_read(Core* e, Client* c) noexcept nogil
# The header that names the exchange's client to an origin, into out[PROXY_WRITE_BYTES_MAX]; bytes written.
cdef uint32_t proxied_write(const Exchange* x, int version, uint8_t* out) noexcept nogil
