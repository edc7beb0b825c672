# judge: see rules.pxd. This first form lets everything pass; the walk over the compiled rules replaces it.
cdef void judge_connection(Shared* s, const Facts* f, uint64_t now_ns, Judgement* out) noexcept nogil:
    out.verdict = 0
cdef void judge_request(Shared* s, const Facts* f, uint64_t now_ns, Judgement* out) noexcept nogil:
    out.rule = -1
    out.rung = -1
cdef void judge_done(Shared* s, const AreaSpec* area, const Judgement* j, uint64_t client_key, uint64_t fingerprint, uint64_t account_key,
                     uint64_t nbytes, uint64_t origin_ns, bint good, uint64_t now_ns) noexcept nogil:
    pass
