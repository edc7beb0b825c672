# Atomic access to memory that other processes write. Owns no data. Loads acquire, stores release, the rest is sequentially consistent;
# the 16-byte swap uses the __sync builtin, which -mcx16 inlines (the __atomic one would call libatomic).
cdef extern from *:
    """
    #define U32_MAX UINT32_MAX
    #define U64_MAX UINT64_MAX
    #define LOAD_N(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define STORE_N(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    static inline uint32_t load_u32(const uint32_t* p) { return LOAD_N(p); }
    static inline uint64_t load_u64(const uint64_t* p) { return LOAD_N(p); }
    static inline void store_u32(uint32_t* p, uint32_t v) { STORE_N(p, v); }
    static inline void store_u64(uint64_t* p, uint64_t v) { STORE_N(p, v); }
    static inline uint64_t add_u64(uint64_t* p, uint64_t v) { return __atomic_add_fetch(p, v, __ATOMIC_SEQ_CST); }
    static inline uint64_t sub_u64(uint64_t* p, uint64_t v) { return __atomic_sub_fetch(p, v, __ATOMIC_SEQ_CST); }
    static inline uint64_t or_u64(uint64_t* p, uint64_t v) { return __atomic_or_fetch(p, v, __ATOMIC_SEQ_CST); }
    static inline uint64_t swap_u64(uint64_t* p, uint64_t v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }
    static inline void sub_floor_u64(uint64_t* p, uint64_t v) {
        uint64_t seen = __atomic_load_n(p, __ATOMIC_RELAXED);
        while (!__atomic_compare_exchange_n(p, &seen, seen > v ? seen - v : 0, 1, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {}
    }
    static inline int cas_u32(uint32_t* p, uint32_t seen, uint32_t wanted) {
        return __atomic_compare_exchange_n(p, &seen, wanted, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    static inline int cas_u64(uint64_t* p, uint64_t seen, uint64_t wanted) {
        return __atomic_compare_exchange_n(p, &seen, wanted, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    static inline int cas_pair(void* p, uint64_t seen_a, uint64_t seen_b, uint64_t a, uint64_t b) {
        unsigned __int128 seen = ((unsigned __int128)seen_b << 64) | seen_a, wanted = ((unsigned __int128)b << 64) | a;
        return __sync_bool_compare_and_swap((unsigned __int128*)p, seen, wanted);
    }
    static inline void fence_acquire(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
    static inline void fence_release(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }
    static inline void fence_full(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
    /* v: not 0. */
    static inline int leading_zeros_u64(uint64_t v) { return __builtin_clzll(v); }
    static inline void spin_pause(void) { __builtin_ia32_pause(); }
    /* a * b / c rounded down, saturating; c = 0 counts as "more than fits" unless the product is 0. */
    static inline uint64_t mul_div_u64(uint64_t a, uint64_t b, uint64_t c) {
        unsigned __int128 product = (unsigned __int128)a * b;
        if (product == 0) return 0;
        if (c == 0) return UINT64_MAX;
        product /= c;
        return product > UINT64_MAX ? UINT64_MAX : (uint64_t)product;
    }
    /* Largest n with n * b / c (rounded down) <= a, saturating: ((a + 1) * c - 1) / b. */
    static inline uint64_t units_within_u64(uint64_t a, uint64_t b, uint64_t c) {
        unsigned __int128 product = ((unsigned __int128)a + 1) * c;
        if (c == 0) return 0;
        if (b == 0) return UINT64_MAX;
        product = (product - 1) / b;
        return product > UINT64_MAX ? UINT64_MAX : (uint64_t)product;
    }
    static inline uint64_t add_saturating_u64(uint64_t a, uint64_t b) {
        uint64_t sum;
        return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
    }
    """
    uint32_t U32_MAX            # no enum: its constants are signed to Cython
    uint64_t U64_MAX
    uint32_t load_u32(const uint32_t* p) noexcept nogil
    uint64_t load_u64(const uint64_t* p) noexcept nogil
    void store_u32(uint32_t* p, uint32_t v) noexcept nogil
    void store_u64(uint64_t* p, uint64_t v) noexcept nogil
    uint64_t add_u64(uint64_t* p, uint64_t v) noexcept nogil      # returns the new value, as the next two
    uint64_t sub_u64(uint64_t* p, uint64_t v) noexcept nogil
    uint64_t or_u64(uint64_t* p, uint64_t v) noexcept nogil
    uint64_t swap_u64(uint64_t* p, uint64_t v) noexcept nogil     # returns the old value
    void sub_floor_u64(uint64_t* p, uint64_t v) noexcept nogil    # never below 0
    bint cas_u32(uint32_t* p, uint32_t seen, uint32_t wanted) noexcept nogil
    bint cas_u64(uint64_t* p, uint64_t seen, uint64_t wanted) noexcept nogil
    # p: 16-byte aligned; swaps both words or neither.
    bint cas_pair(void* p, uint64_t seen_a, uint64_t seen_b, uint64_t a, uint64_t b) noexcept nogil
    void fence_acquire() noexcept nogil
    void fence_release() noexcept nogil
    void fence_full() noexcept nogil
    void spin_pause() noexcept nogil
    int leading_zeros_u64(uint64_t v) noexcept nogil              # v: not 0
    # 128-bit in between, saturating.
    uint64_t mul_div_u64(uint64_t a, uint64_t b, uint64_t c) noexcept nogil
    uint64_t units_within_u64(uint64_t a, uint64_t b, uint64_t c) noexcept nogil
    uint64_t add_saturating_u64(uint64_t a, uint64_t b) noexcept nogil
