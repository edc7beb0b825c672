# What a client takes for an answer of our own (RFC 9110 12.5.1): problem details, or what people read. Knows no socket.
# True: JSON is named (application/problem+json, else application/json or another application/…+json; never by */* alone), and weighs more
# than 0 and no less than text/html does.
cdef bint accepts_json(const uint8_t* data, const RequestHead* head) noexcept nogil
