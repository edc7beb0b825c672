# Step 6 for what is answered here: short, plain pages, or problem details (RFC 9457) where the client asks for JSON.
cdef const char* status_text(uint16_t status) noexcept nogil
# Queue the whole answer of an exchange; it is then done but for the sending. A request whose body was not read ends its connection.
cdef void answer(Core* e, Exchange* x, uint16_t status) noexcept nogil
# Date and log time, made anew once a second.
cdef void clock_refresh(Core* e) noexcept nogil
