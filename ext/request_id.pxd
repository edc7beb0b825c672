# The id of a request: in the log, in what the origin gets and in every answer. Ours, unless a trusted proxy gave it one already.
# Taken over from the head where the connection's peer is a trusted proxy, there is one X-Request-Id and it is sound.
cdef void request_id_take(Exchange* x, const Facts* f) noexcept nogil
cdef void put_request_id(Writer* w, const Exchange* x) noexcept nogil
