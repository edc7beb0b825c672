# judge: the one place where a verdict is chosen. Walks the compiled rules; time is passed in; allocates nothing; knows no socket.
# Every matching rule is charged; the severest verdict wins, the earlier rule on a tie.
cdef struct Facts:
    const Policy* policy
    const ListenerSpec* listener    # NULL for what is asked of a tunnel
    const AreaSpec* area        # NULL in the connection phase before a Host
    const uint8_t* data         # the head's bytes
    const RequestHead* head     # NULL in the connection phase
    Address client              # client key form (IPv6: its /64)
    Address client_full         # the full address, for never-block and records
    int32_t proof               # PROOF_*
    uint64_t client_key         # keyed hash of client
    uint64_t prefix_key         # keyed hash of its /24 or /48
    uint64_t fingerprint        # 0: none
    uint64_t account_key        # keyed hash, 0: none
    const uint8_t* ja3          # of the ClientHello, JA3_BYTES and JA4_BYTES of text; NULL: none
    const uint8_t* ja4
    uint64_t http2              # fingerprint of how the connection speaks HTTP/2, 0: it does not
    uint64_t ja3_key            # keyed hashes, 0: none
    uint64_t ja4_key
    uint32_t hello_area         # area_id that was named there and asked; NO_AREA: none
    const uint8_t* path         # normalised
    uint32_t path_len
    Arrival arrival             # of a CHAIN's client
    bint first_request          # of its connection, for this area

# What is to be charged when the request ends; values, not indexes, so that a reload in between does no harm.
cdef struct Charge:
    uint64_t key
    Rate rate
    uint64_t debt_max_ns
    uint32_t unit
    uint32_t reserved

cdef struct Judgement:
    int32_t verdict             # what to do (PASS in a dry run)
    int32_t decided             # what was decided (differs from verdict in a dry run only)
    int32_t rule                # rule index, -1: none
    int32_t rung                # -1: none
    int32_t measure             # of that rung
    bint known                  # client known from before
    bint blocked                # by the block table
    bint shed                   # by an area-wide limit
    bint crowd                  # an area-wide limit was over: everybody's doing, says nothing of this client
    uint64_t case_id            # of the block that was met or made, else 0
    uint64_t retry_ns           # THROTTLE: Retry-After
    uint64_t limit_count        # of the rule that answered, for RateLimit fields; 0: it does not count requests
    uint64_t limit_period_ns
    uint64_t remaining
    uint64_t reset_ns
    uint32_t charge_count
    Charge charges[8]           # CHARGES_MAX

# accept: block table and connection-phase rules of the listener. Verdict PASS or DROP: there is nothing else to do to a connection, so
# throttle drops the ones over the limit. A trusted proxy is not asked for: its clients are, with their first request.
cdef void judge_connection(Shared* s, const Facts* f, uint64_t now_ns, Judgement* out) noexcept nogil
# hello: blocks of the area that a ClientHello names, and its rules about handshakes and TLS fingerprints. Anything but PASS closes.
cdef void judge_hello(Shared* s, const Facts* f, uint64_t now_ns, Judgement* out) noexcept nogil
# An HTTP/2 connection is ended for what its client did: rules about abuses. The verdict is DROP in any case.
cdef void judge_abuse(Shared* s, const Facts* f, uint64_t now_ns, Judgement* out) noexcept nogil
# request: block table again (other proofs, other areas, keys), then the area's rules. f.area is not NULL.
cdef void judge_request(Shared* s, const Facts* f, uint64_t now_ns, Judgement* out) noexcept nogil
# Is what is in flight for this client blocked by now (whole address, keys, area)? Never for who is never-block, nor in a dry run.
cdef bint judge_standing(Shared* s, const Facts* f, uint64_t now_ns) noexcept nogil
# account: charge bytes and the origin's time, release what is concurrent, note how the client behaved. Always called, once a judgement;
# area NULL: none was named. good: not a client error (whether it was within every limit, the judgement says).
cdef void judge_done(Shared* s, const AreaSpec* area, const Judgement* j, uint64_t client_key, uint64_t fingerprint, uint64_t account_key,
                     uint64_t nbytes, uint64_t origin_ns, bint good, uint64_t now_ns) noexcept nogil
