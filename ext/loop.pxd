# The pass, the ready list and the timer wheel.
cdef void ready_add(Core* e, Handle* h) noexcept nogil
cdef void ready_remove(Handle* h) noexcept nogil
# Call back at deadline_ns or up to a tick later; an earlier deadline replaces a later one and the other way round.
cdef void timer_set(Core* e, Handle* h, uint64_t deadline_ns) noexcept nogil
cdef void timer_clear(Core* e, Handle* h) noexcept nogil
# Off every list and closed; its memory is given back when the pass ends.
cdef void handle_bury(Core* e, Handle* h, bint reset) noexcept nogil
cdef bint handle_watch(Core* e, Handle* h) noexcept nogil
cdef bint core_pass(Core* e) noexcept nogil
# Every EVENT_READ/WRITE bit stays set until recv/send said EAGAIN or came back short.
