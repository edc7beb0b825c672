# Conditions of a rule: does `when` hold for this request? Pure: reads facts, changes nothing. Owns how texts are compared.
# Invariants: linear in the text whatever the pattern (memmem), so that no request is expensive to match.

cdef extern from *:
    """
    #include <string.h>
    static inline int scrubber_contains(const void* text, size_t n, const void* part, size_t m) { return memmem(text, n, part, m) != NULL; }
    """
    bint scrubber_contains(const void* text, size_t n, const void* part, size_t m) noexcept nogil


cdef inline bint texts_equal(const uint8_t* a, const uint8_t* b, uint32_t n, bint any_case) noexcept nogil:
    return fold_equal(a, b, n) if any_case else memcmp(a, b, n) == 0


cdef bint text_matches(const uint8_t* text, uint32_t n, const uint8_t* pattern, uint32_t m, int match, bint any_case) noexcept nogil:
    cdef uint32_t i
    if match == MATCH_EXACT:
        return n == m and texts_equal(text, pattern, n, any_case)
    if m > n:
        return False
    if match == MATCH_PREFIX:
        return texts_equal(text, pattern, m, any_case)
    if match == MATCH_SUFFIX:
        return texts_equal(text + (n - m), pattern, m, any_case)
    if not any_case:
        return scrubber_contains(text, n, pattern, m)
    for i in range(n - m + 1):      # host names only: at most 255 bytes
        if fold_equal(text + i, pattern, m):
            return True
    return False


cdef bint condition_header(const Facts* f, const ConditionSpec* c) noexcept nogil:
    cdef const uint8_t* text = f.policy.text
    cdef const Header* h
    cdef uint32_t i
    for i in range(f.head.header_count):
        h = &f.head.headers[i]
        if h.name_len != c.name.len or not fold_equal(f.data + h.name_off, text + c.name.off, c.name.len):
            continue
        if c.match == MATCH_PRESENT:
            return True
        if text_matches(f.data + h.value_off, h.value_len, text + c.value.off, c.value.len, c.match, False):
            return True
    return False


cdef bint parts_match(const uint8_t* text, uint32_t n, const uint8_t* pattern, uint32_t m) noexcept nogil:
    """Parts between "_": each as the pattern has it, or beginning with what stands before its star."""
    cdef uint32_t i = 0, k = 0
    while k < m:
        if pattern[k] == c"*":
            while i < n and text[i] != c"_":
                i += 1
            k += 1
        elif i < n and text[i] == pattern[k]:
            i += 1
            k += 1
        else:
            return False
    return i == n


cdef inline bint print_matches(const Facts* f, const ConditionSpec* c, const uint8_t* text, uint32_t n) noexcept nogil:
    cdef const uint8_t* wanted = f.policy.text + c.value.off
    if text == NULL:
        return False
    if c.match == MATCH_PARTS:
        return parts_match(text, n, wanted, c.value.len)
    return c.value.len == n and memcmp(text, wanted, n) == 0


# Before a head there is an address, and after a ClientHello its fingerprints.
cdef bint condition_connection(const Facts* f, const ConditionSpec* c, bint known) noexcept nogil:
    if c.kind == CONDITION_CLIENT:
        return prefixes_find(&f.policy.prefixes[c.arg - 1], &f.client_full) != 0
    if c.kind == CONDITION_JA3:
        return print_matches(f, c, f.ja3, JA3_BYTES)
    if c.kind == CONDITION_JA4:
        return print_matches(f, c, f.ja4, JA4_BYTES)
    return c.kind == CONDITION_KNOWN and known


cdef bint condition_request(const Facts* f, const ConditionSpec* c, bint known, bint rush) noexcept nogil:
    cdef const uint8_t* value = f.policy.text + c.value.off
    cdef const RequestHead* head = f.head
    if c.kind == CONDITION_METHOD:
        return c.arg >> head.method & 1
    if c.kind == CONDITION_PATH:
        return text_matches(f.path, f.path_len, value, c.value.len, c.match, False)
    if c.kind == CONDITION_HOST:
        return head.host.len <= POLICY_HOST_BYTES_MAX \
            and text_matches(f.data + head.host.off, head.host.len, value, c.value.len, c.match, True)
    if c.kind == CONDITION_QUERY:
        return text_matches(f.data + head.query.off, head.query.len, value, c.value.len, c.match, False)
    if c.kind == CONDITION_HEADER:
        return condition_header(f, c)
    if c.kind == CONDITION_CLIENT or c.kind == CONDITION_JA3 or c.kind == CONDITION_JA4:
        return condition_connection(f, c, known)
    if c.kind == CONDITION_HTTP2:
        return f.http2 != 0 and f.http2 == c.arg
    if c.kind == CONDITION_FINGERPRINT:
        return f.fingerprint != 0 and f.fingerprint == c.arg
    if c.kind == CONDITION_KNOWN:
        return known
    if c.kind == CONDITION_ACCOUNT:
        return f.account_key != 0
    return c.kind == CONDITION_RUSH and rush


# All conditions hold; of a run joined by any_next, one.
cdef bint conditions_hold(const Facts* f, const RuleSpec* r, bint known, bint rush) noexcept nogil:
    cdef const ConditionSpec* c
    cdef bint held = False, one
    cdef uint32_t i
    for i in range(r.conditions.len):
        c = &f.policy.conditions[r.conditions.off + i]
        if c.kind == CONDITION_NEVER:
            one = False
        elif f.head == NULL:
            one = condition_connection(f, c, known) != c.negate
        else:
            one = condition_request(f, c, known, rush) != c.negate
        held = held or one
        if not c.any_next:
            if not held:
                return False
            held = False
    return True
