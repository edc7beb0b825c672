# Step 2, hello: who knocks at a TLS port, by the first message it sends; then its handshake, when it is its turn.
# The inbox holds the first bytes of a TLS connection. False: waiting for more of something else, or over.
cdef bint hello_read(Core* e, Client* c) noexcept nogil
# A connection in its handshake: events came. True: TLS stands, and the client may be read.
cdef bint handshake_step(Core* e, Client* c) noexcept nogil
# Its time is over.
cdef void handshake_timeout(Core* e, Client* c) noexcept nogil
# A few handshakes of those that wait, people known from before first. Each costs a use of the private key (0.1 to 0.6 ms), which is why
# a pass makes no more of them.
cdef void handshakes_serve(Core* e) noexcept nogil
cdef bint handshakes_wait(const Core* e) noexcept nogil
cdef void handshake_leave(Core* e, Tls* t) noexcept nogil
