# Pages: answers of our own whose bytes stand in the policy: fixed answers, redirects, small files, maintenance and error pages. A body is
# sent from where it lies: a slow reader holds one buffer at most.
# The answer that a route says. f: the request, for Location and for validators.
cdef void page_answer(Core* e, Exchange* x, const PageSpec* page, const Facts* f) noexcept nogil
# A maintenance page, or where it has none of its own (or the client wants JSON), the answer that its status has.
cdef void page_or_answer(Core* e, Exchange* x, const PageSpec* page) noexcept nogil
# The area's error page for a status of ours; NULL: it has none.
cdef const PageSpec* page_of_error(const Exchange* x, uint16_t status) noexcept nogil
# False: no buffer for it.
cdef bint page_error(Core* e, Exchange* x, const PageSpec* page, uint16_t status) noexcept nogil
# Send on. 1: all of the body is sent, 0: the socket is full, -1: broken.
cdef int page_pump(Core* e, Client* c, Exchange* x) noexcept nogil
