# GCRA (ITU-T I.371, virtual scheduling): one theoretical arrival time a key, in 16-byte cells shared by all workers.
# A cell changes by one 16-byte compare-and-swap, so an eviction in between never charges another client.
cdef struct Cell:
    uint64_t key                # keyed hash over (rule id, key); 0 is empty
    uint64_t tat_ns             # theoretical arrival time, CLOCK_MONOTONIC

cdef struct Limiter:
    Cell* cells
    uint64_t bucket_mask        # buckets - 1; CELLS_BUCKET cells a bucket

# count units every period_ns, burst units at once (burst >= 1).
cdef struct Rate:
    uint64_t count
    uint64_t period_ns
    uint64_t burst

cdef struct Admission:
    bint limited
    uint64_t remaining          # units that would pass now
    uint64_t retry_ns           # 0: at once. UINT64_MAX: never (cost exceeds the burst)
    uint64_t reset_ns           # until the cell is as new

# Ask for cost units; a limited request leaves the cell unchanged. cost 0 asks without charging (limited: no whole unit is left).
# share_ppm < 1_000_000 sees only that share of the burst: newcomers, while the rest is kept for those who are known.
cdef void limiter_admit(Limiter* t, uint64_t key, const Rate* rate, uint64_t cost, uint32_t share_ppm,
                        uint64_t now_ns, Admission* out) noexcept nogil
# Charge without asking (bytes, origin seconds: known only when the response ends). Debt is bounded to debt_max_ns beyond the burst.
cdef void limiter_charge(Limiter* t, uint64_t key, const Rate* rate, uint64_t cost, uint64_t debt_max_ns,
                         uint64_t now_ns) noexcept nogil
