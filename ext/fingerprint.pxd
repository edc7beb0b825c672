# Header-order fingerprint of HTTP/1.1 clients, our own (docs/fingerprints.md): 64 bits over version and header names in order, without
# those that one client sends only now and then. Not keyed: equal on every gateway. 0 is never returned.
cdef uint64_t fingerprint_head(const uint8_t* data, const RequestHead* head, uint8_t version) noexcept nogil
# Text form into out[19]: "h1_" and 16 hex digits; bytes written.
cdef uint32_t fingerprint_text(uint64_t value, uint8_t* out) noexcept nogil
