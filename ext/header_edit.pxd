# Header edits: fields that an area or a route takes away or puts in, compiled to one list in which every DROP stands before every PUT.
# Does a field of the other side end here?
cdef bint edits_drop(const Policy* p, const Span* edits, const uint8_t* name, uint32_t length) noexcept nogil
# Is there an edit that puts this field (a NUL-terminated name in lower case), or takes it away? Then we do not write our own.
cdef bint edits_name(const Policy* p, const Span* edits, const char* name) noexcept nogil
# The fields that are put in. f: NULL where the request's head is gone (answers).
cdef void edits_put(const Policy* p, const Span* edits, Writer* w, const Exchange* x, const Facts* f) noexcept nogil
# What stands in for one part, in a place where nothing of it can end a field. False: the part is none of those.
cdef bint part_put(const Policy* p, const PartSpec* part, Writer* w, const Exchange* x, const Facts* f) noexcept nogil
