# RFC 9111 decisions: see cache_policy.pxd. Owns the reading of Cache-Control, HTTP dates, entity tags and Vary.
# Invariants: what cannot be read counts against storing and against freshness; nothing past a field's value is read.

cdef enum:
    FIELD_CACHE_CONTROL = 0
    FIELD_EXPIRES = 1
    FIELD_AGE = 2
    FIELD_ETAG = 3
    FIELD_LAST_MODIFIED = 4
    FIELD_VARY = 5
    FIELD_SET_COOKIE = 6
    FIELD_PRAGMA = 7
    FIELD_IF_NONE_MATCH = 8
    FIELD_IF_MODIFIED_SINCE = 9
    FIELD_CONTENT_RANGE = 10
    FIELD_SET_COOKIE2 = 11
    FIELDS = 12
    STRIPPED = 7

cdef const char* FIELD_NAMES[12]
cdef uint32_t FIELD_LENGTHS[12]
cdef uint32_t FIELD_HASHES[12]
cdef const char* STRIPPED_NAMES[7]
cdef uint32_t STRIPPED_LENGTHS[7]

cdef uint64_t S_NS = 1000000000


cdef void cache_tables():
    cdef int i
    FIELD_NAMES[:] = ["cache-control", "expires", "age", "etag", "last-modified", "vary", "set-cookie", "pragma", "if-none-match",
                      "if-modified-since", "content-range", "set-cookie2"]
    STRIPPED_NAMES[:] = ["x-host", "x-http-host-override", "front-end-https", "x-url-scheme", "x-http-method-override", "x-http-method",
                         "x-method-override"]
    for i in range(FIELDS):
        FIELD_LENGTHS[i] = <uint32_t>strlen(FIELD_NAMES[i])
        FIELD_HASHES[i] = http1_name_hash(<const uint8_t*>FIELD_NAMES[i], FIELD_LENGTHS[i])
    for i in range(STRIPPED):
        STRIPPED_LENGTHS[i] = <uint32_t>strlen(STRIPPED_NAMES[i])


cache_tables()


cdef inline int32_t field_find(const uint8_t* data, const Header* headers, uint32_t count, uint32_t start, int field) noexcept nogil:
    return http1_find(data, headers, count, start, <const uint8_t*>FIELD_NAMES[field], FIELD_LENGTHS[field], FIELD_HASHES[field])


cdef bint cache_strips(const uint8_t* name, uint32_t length, bint heeded, bint conditions) noexcept nogil:
    cdef uint8_t first = fold(name[0]) if length else 0
    cdef int i
    if first == c"x":
        if length >= 12 and fold_equal(name, <const uint8_t*>b"x-forwarded-", 12):
            return not (folds_to(name, length, "x-forwarded-for") or folds_to(name, length, "x-forwarded-proto")
                        or folds_to(name, length, "x-forwarded-host"))
        if length >= 11 and fold_equal(name, <const uint8_t*>b"x-original-", 11) \
                or length >= 10 and fold_equal(name, <const uint8_t*>b"x-rewrite-", 10):
            return True
    elif first == c"i":
        return conditions and (folds_to(name, length, "if-none-match") or folds_to(name, length, "if-modified-since")
                               or folds_to(name, length, "if-range") or folds_to(name, length, "if-match")
                               or folds_to(name, length, "if-unmodified-since"))
    elif first == c"c" or first == c"p":
        return (not heeded and (folds_to(name, length, "cache-control") or folds_to(name, length, "pragma"))
                or folds_to(name, length, "content-length"))
    elif first == c"e":
        return folds_to(name, length, "expect")
    elif first != c"f":
        return False
    for i in range(STRIPPED):
        if length == STRIPPED_LENGTHS[i] and fold_equal(name, <const uint8_t*>STRIPPED_NAMES[i], length):
            return True
    return False


# --- dates (RFC 9110 5.6.7) --------------------------------------------------------------------------------------------------------------

cdef int date_number(const uint8_t* p, int digits) noexcept nogil:
    """-1: not that many digits. A day of asctime may have a space for its first."""
    cdef int i, value = 0
    for i in range(digits):
        if not c"0" <= p[i] <= c"9":
            if i == 0 and digits == 2 and p[0] == c" ":
                continue
            return -1
        value = value * 10 + (p[i] - c"0")
    return value


cdef int date_month(const uint8_t* p) noexcept nogil:
    cdef const char* names = b"janfebmaraprmayjunjulaugsepoctnovdec"
    cdef int i
    for i in range(12):
        if fold_equal(p, <const uint8_t*>names + 3 * i, 3):
            return i + 1
    return 0


cdef bint date_time(const uint8_t* p, int64_t* seconds) noexcept nogil:
    """hh:mm:ss"""
    cdef int h = date_number(p, 2), m = date_number(p + 3, 2), s = date_number(p + 6, 2)
    if p[0] == c" " or p[3] == c" " or p[6] == c" " or p[2] != c":" or p[5] != c":":
        return False
    if not 0 <= h <= 23 or not 0 <= m <= 59 or not 0 <= s <= 60:
        return False
    seconds[0] = h * 3600 + m * 60 + s
    return True


cdef int64_t date_days(int64_t year, int month, int day) noexcept nogil:
    """Days since 1970-01-01 in the Gregorian calendar (year 1 and later)."""
    cdef int64_t y = year - (1 if month <= 2 else 0)
    cdef int64_t era = y / 400
    cdef int64_t of_era = y - era * 400
    cdef int64_t of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) / 5 + day - 1
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468


cdef bint date_sound(int64_t year, int month, int day) noexcept nogil:
    cdef int last = 31
    if month == 4 or month == 6 or month == 9 or month == 11:
        last = 30
    elif month == 2:
        last = 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return year >= 1 and 1 <= month <= 12 and 1 <= day <= last


cdef bint http_date_parse(const uint8_t* text, uint32_t length, int64_t now_s, int64_t* out) noexcept nogil:
    cdef const uint8_t* p = text
    cdef const uint8_t* comma
    cdef int64_t seconds = 0, year
    cdef int day, month
    if length == 29 and p[3] == c",":
        # Sun, 06 Nov 1994 08:49:37 GMT
        day, month, year = date_number(p + 5, 2), date_month(p + 8), date_number(p + 12, 4)
        if p[4] != c" " or p[5] == c" " or p[7] != c" " or p[11] != c" " or p[16] != c" " or memcmp(p + 25, <const char*>b" GMT", 4) != 0:
            return False
        if not date_time(p + 17, &seconds):
            return False
    elif length == 24 and p[3] == c" ":
        # Sun Nov  6 08:49:37 1994
        month, day, year = date_month(p + 4), date_number(p + 8, 2), date_number(p + 20, 4)
        if p[7] != c" " or p[10] != c" " or p[19] != c" " or not date_time(p + 11, &seconds):
            return False
    else:
        # Sunday, 06-Nov-94 08:49:37 GMT
        comma = <const uint8_t*>memchr(text, c",", length)
        if comma == NULL or comma - text < 6 or text + length - comma != 24 or memcmp(text + length - 4, <const char*>b" GMT", 4) != 0:
            return False
        p = comma + 2
        day, month, year = date_number(p, 2), date_month(p + 3), date_number(p + 7, 2)
        if comma[1] != c" " or p[0] == c" " or p[7] == c" " or p[2] != c"-" or p[6] != c"-" or p[9] != c" " or year < 0 \
                or not date_time(p + 10, &seconds):
            return False
        # A year that would lie over 50 years ahead is one of the past century.
        year += (1970 + now_s / 31556952) / 100 * 100
        if date_days(year, 1, 1) * 86400 > now_s + <int64_t>50 * 31556952:
            year -= 100
    if day < 0 or year < 0 or not date_sound(year, month, day):
        return False
    out[0] = date_days(year, month, day) * 86400 + seconds
    return True


# --- directives (RFC 9111 5.2) -----------------------------------------------------------------------------------------------------------

cdef struct Directive:
    Span name
    Span value
    bint given                  # there is a "="


cdef bint next_directive(const uint8_t* data, uint32_t* at, uint32_t end, Directive* out) noexcept nogil:
    """The next of a comma-separated list; a quoted value comes without its quotes. What follows a name and is no value is overlooked."""
    cdef uint32_t p = at[0]
    while p < end and (data[p] == c" " or data[p] == c"\t" or data[p] == c","):
        p += 1
    if p >= end:
        return False
    out.name.off = p
    while p < end and TOKEN[data[p]]:
        p += 1
    out.name.len = p - out.name.off
    out.value.off = p
    out.value.len = 0
    out.given = p < end and data[p] == c"="
    if out.given:
        p += 1
        if p < end and data[p] == c'"':
            p += 1
            out.value.off = p
            while p < end and data[p] != c'"':
                p += 2 if data[p] == c"\\" and p + 1 < end else 1
            out.value.len = p - out.value.off
        else:
            out.value.off = p
            while p < end and data[p] != c"," and data[p] != c" " and data[p] != c"\t":
                p += 1
            out.value.len = p - out.value.off
    while p < end and data[p] != c",":
        p += 1
    at[0] = p
    return True


cdef uint32_t delta_seconds(const uint8_t* data, const Directive* d) noexcept nogil:
    """RFC 9111 1.2.2; at most CACHE_SECONDS_MAX. What is no number is 0: stale."""
    cdef uint64_t value = 0
    cdef uint32_t i
    if not d.given or d.value.len == 0:
        return 0
    for i in range(d.value.len):
        if not c"0" <= data[d.value.off + i] <= c"9":
            return 0
        value = value * 10 + (data[d.value.off + i] - c"0")
        if value > CACHE_SECONDS_MAX:
            value = CACHE_SECONDS_MAX
    return <uint32_t>value


cdef inline bint directive_is(const uint8_t* data, const Directive* d, const char* word) noexcept nogil:
    return folds_to(data + d.name.off, d.name.len, word)


# --- requests ----------------------------------------------------------------------------------------------------------------------------

cdef void ask_directives(const uint8_t* data, const RequestHead* head, CacheAsk* out) noexcept nogil:
    cdef int32_t i = field_find(data, head.headers, head.header_count, 0, FIELD_CACHE_CONTROL)
    cdef uint32_t at, end, seconds
    cdef Directive d
    cdef bint any_of = i >= 0
    while i >= 0:
        at = head.headers[i].value_off
        end = at + head.headers[i].value_len
        while next_directive(data, &at, end, &d):
            seconds = delta_seconds(data, &d)
            if directive_is(data, &d, "no-cache"):
                out.flags |= ASK_NO_CACHE
            elif directive_is(data, &d, "no-store"):
                out.flags |= ASK_NO_STORE
            elif directive_is(data, &d, "only-if-cached"):
                out.flags |= ASK_ONLY_IF_CACHED
            elif directive_is(data, &d, "max-age"):
                out.max_age_s = seconds if seconds < out.max_age_s else out.max_age_s
            elif directive_is(data, &d, "min-fresh"):
                out.min_fresh_s = seconds if seconds > out.min_fresh_s else out.min_fresh_s
            elif directive_is(data, &d, "max-stale"):
                out.max_stale_s = seconds if d.given else CACHE_SECONDS_MAX
        i = field_find(data, head.headers, head.header_count, <uint32_t>i + 1, FIELD_CACHE_CONTROL)
    i = field_find(data, head.headers, head.header_count, 0, FIELD_PRAGMA)
    # RFC 9111 5.4: where there is no Cache-Control.
    if i >= 0 and not any_of and folds_to(data + head.headers[i].value_off, head.headers[i].value_len, "no-cache"):
        out.flags |= ASK_NO_CACHE


cdef void cache_ask(const uint8_t* data, const RequestHead* head, const uint8_t* account, uint32_t account_len, int64_t now_s,
                    CacheAsk* out) noexcept nogil:
    cdef int32_t i
    memset(out, 0, sizeof(CacheAsk))
    out.max_age_s = CACHE_SECONDS_MAX
    out.modified_since_s = -1
    if head.method == METHOD_HEAD:
        out.flags |= ASK_HEAD
    elif head.method != METHOD_GET:
        out.flags |= ASK_PASS
    # Content-Length: 0 is no body, and without one an Expect asks for nothing (RFC 9110 10.1.1).
    if head.body == BODY_CHUNKED or head.content_length > 0:
        out.flags |= ASK_PASS
    if head.first[HEADER_AUTHORIZATION] >= 0 or head.first[HEADER_COOKIE] >= 0 or account_len and http1_find(
            data, head.headers, head.header_count, 0, account, account_len, http1_name_hash(account, account_len)) >= 0:
        out.flags |= ASK_CREDENTIALS
    if head.first[HEADER_RANGE] >= 0:
        out.flags |= ASK_RANGE
    # If-Match and If-Unmodified-Since are not looked at: they are for origins, a cache may ignore them (RFC 9110 13.1.1, 13.1.4;
    # RFC 9111 4.3.2).
    ask_directives(data, head, out)
    i = field_find(data, head.headers, head.header_count, 0, FIELD_IF_NONE_MATCH)
    if i >= 0:
        # If-None-Match given: If-Modified-Since is not looked at (RFC 9110 13.1.3). Several are answered as if there were none.
        if field_find(data, head.headers, head.header_count, <uint32_t>i + 1, FIELD_IF_NONE_MATCH) < 0:
            out.none_match.off = head.headers[i].value_off
            out.none_match.len = head.headers[i].value_len
        return
    i = field_find(data, head.headers, head.header_count, 0, FIELD_IF_MODIFIED_SINCE)
    if i >= 0 and http_date_parse(data + head.headers[i].value_off, head.headers[i].value_len, now_s, &out.modified_since_s):
        out.flags |= ASK_SINCE


# --- answers -----------------------------------------------------------------------------------------------------------------------------

cdef struct AnswerWords:        # what Cache-Control says
    bint no_store
    bint no_cache
    bint private_
    bint must_understand
    bint max_age
    bint s_maxage
    uint32_t max_age_s
    uint32_t s_maxage_s


cdef void answer_directives(const uint8_t* data, const ResponseHead* head, AnswerWords* w, CacheAnswer* out) noexcept nogil:
    cdef int32_t i = field_find(data, head.headers, head.header_count, 0, FIELD_CACHE_CONTROL)
    cdef uint32_t at, end, seconds
    cdef Directive d
    w.max_age_s = w.s_maxage_s = CACHE_SECONDS_MAX
    while i >= 0:
        at = head.headers[i].value_off
        end = at + head.headers[i].value_len
        while next_directive(data, &at, end, &d):
            seconds = delta_seconds(data, &d)
            if directive_is(data, &d, "no-store"):
                w.no_store = True
            elif directive_is(data, &d, "no-cache"):
                w.no_cache = True       # with field names too: no part of such an answer is given without asking
            elif directive_is(data, &d, "private"):
                w.private_ = True       # with field names too
            elif directive_is(data, &d, "must-understand"):
                w.must_understand = True
            elif directive_is(data, &d, "public"):
                out.flags |= ANSWER_PUBLIC
            elif directive_is(data, &d, "must-revalidate") or directive_is(data, &d, "proxy-revalidate"):
                out.flags |= ANSWER_REVALIDATE
            elif directive_is(data, &d, "max-age"):
                w.max_age = True        # named twice, the shorter counts
                w.max_age_s = seconds if seconds < w.max_age_s else w.max_age_s
            elif directive_is(data, &d, "s-maxage"):
                w.s_maxage = True
                out.flags |= ANSWER_S_MAXAGE
                w.s_maxage_s = seconds if seconds < w.s_maxage_s else w.s_maxage_s
            elif directive_is(data, &d, "stale-while-revalidate"):
                out.while_revalidate_ns = seconds * S_NS
            elif directive_is(data, &d, "stale-if-error"):
                out.if_error_ns = seconds * S_NS
        i = field_find(data, head.headers, head.header_count, <uint32_t>i + 1, FIELD_CACHE_CONTROL)


cdef inline bint status_heuristic(uint16_t status) noexcept nogil:
    """Cacheable by default (RFC 9110 15.1), 206 left out: we keep no parts."""
    return (status == 200 or status == 203 or status == 204 or status == 300 or status == 301 or status == 308 or status == 404
            or status == 405 or status == 410 or status == 414 or status == 501)


cdef bint field_date(const uint8_t* data, const Header* headers, uint32_t count, int field, int64_t now_s, int64_t* out) noexcept nogil:
    """The field's date. False: there is none, or several, or it cannot be read."""
    cdef int32_t i = field_find(data, headers, count, 0, field)
    if i < 0 or field_find(data, headers, count, <uint32_t>i + 1, field) >= 0:
        return False
    return http_date_parse(data + headers[i].value_off, headers[i].value_len, now_s, out)


cdef uint64_t age_value_ns(const uint8_t* data, const ResponseHead* head) noexcept nogil:
    """Age (RFC 9111 5.1): the first member of the first field; what is no number is ignored."""
    cdef int32_t i = field_find(data, head.headers, head.header_count, 0, FIELD_AGE)
    cdef Directive d
    if i < 0:
        return 0
    d.given = True
    d.value.off = head.headers[i].value_off
    d.value.len = 0
    while d.value.len < head.headers[i].value_len and c"0" <= data[d.value.off + d.value.len] <= c"9":
        d.value.len += 1
    return delta_seconds(data, &d) * S_NS


cdef uint64_t lifetime_of(const uint8_t* data, const ResponseHead* head, const AnswerWords* w, const CacheSpec* spec, int64_t date_s,
                          int64_t now_s, CacheAnswer* out) noexcept nogil:
    """RFC 9111 4.2.1, 4.2.2. 0: none."""
    cdef int64_t expires_s = 0
    cdef uint64_t tenth_ns
    if w.s_maxage:
        return w.s_maxage_s * S_NS
    if w.max_age:
        return w.max_age_s * S_NS
    if field_find(data, head.headers, head.header_count, 0, FIELD_EXPIRES) >= 0:
        if not field_date(data, head.headers, head.header_count, FIELD_EXPIRES, now_s, &expires_s) or expires_s <= date_s:
            return 0
        expires_s -= date_s
        return <uint64_t>(expires_s if expires_s < CACHE_SECONDS_MAX else CACHE_SECONDS_MAX) * S_NS
    if spec.ttl_default_ns == 0 or not (status_heuristic(head.status) or out.flags & ANSWER_PUBLIC):
        return 0
    # The micro-TTL is the operator's and counts from when the answer came, however long the origin took over it.
    tenth_ns = spec.ttl_default_ns
    if out.modified_s >= 0 and out.modified_s < date_s and date_s - out.modified_s < CACHE_SECONDS_MAX:
        tenth_ns = <uint64_t>(date_s - out.modified_s) * (S_NS / 10)
        if tenth_ns < S_NS:
            tenth_ns = S_NS
        if tenth_ns > spec.ttl_default_ns:
            tenth_ns = spec.ttl_default_ns
    return out.initial_age_ns + tenth_ns


cdef uint32_t answer_refused(const uint8_t* data, const ResponseHead* head, uint8_t method, uint32_t ask_flags, const CacheSpec* spec,
                             const AnswerWords* w, const CacheAnswer* a) noexcept nogil:
    """RFC 9111 3, freshness apart. STORE_*."""
    cdef uint8_t names[CACHE_VARY_BYTES_MAX]
    if method != METHOD_GET or ask_flags & (ASK_PASS | ASK_RANGE):
        return STORE_METHOD
    if ask_flags & ASK_NO_STORE:
        return STORE_ASKED
    # What only the one who asked can have meant: parts, and the answers to conditions and expectations.
    if head.status < 200 or head.status == 206 or head.status == 304 or head.status == 412 or head.status == 416 or head.status == 417:
        return STORE_STATUS
    if w.must_understand and not status_heuristic(head.status) and head.status != 302 and head.status != 307:
        return STORE_STATUS
    # must-understand: no-store is for those who do not know the status (RFC 9111 5.2.2.3).
    if w.no_store and not w.must_understand:
        return STORE_NO_STORE
    if w.private_:
        return STORE_PRIVATE
    if field_find(data, head.headers, head.header_count, 0, FIELD_SET_COOKIE) >= 0 \
            or field_find(data, head.headers, head.header_count, 0, FIELD_SET_COOKIE2) >= 0:
        return STORE_SET_COOKIE
    if a.flags & ANSWER_VARY and cache_vary_names(data, head.headers, head.header_count, names, CACHE_VARY_BYTES_MAX) < 0:
        return STORE_VARY
    if ask_flags & ASK_CREDENTIALS and not a.flags & ANSWER_PUBLIC:
        return STORE_CREDENTIALS
    if head.body == BODY_CLOSE or head.first[HEADER_TRAILER] >= 0 and head.body != BODY_CHUNKED \
            or field_find(data, head.headers, head.header_count, 0, FIELD_CONTENT_RANGE) >= 0:
        return STORE_FRAMING
    if head.body == BODY_LENGTH and head.content_length > spec.object_bytes_max:
        return STORE_SIZE
    return STORE_YES


cdef void cache_bound(CacheAnswer* a, const CacheSpec* spec) noexcept nogil:
    if spec.ttl_max_ns and a.lifetime_ns > a.initial_age_ns and a.lifetime_ns - a.initial_age_ns > spec.ttl_max_ns:
        a.lifetime_ns = a.initial_age_ns + spec.ttl_max_ns


cdef void cache_answer(const uint8_t* data, const ResponseHead* head, uint8_t method, uint32_t ask_flags, const CacheSpec* spec,
                       uint64_t asked_wall_ns, uint64_t got_wall_ns, CacheAnswer* out) noexcept nogil:
    cdef AnswerWords w
    cdef int64_t got_s = <int64_t>(got_wall_ns / S_NS)
    cdef int64_t date_s = got_s
    cdef uint64_t apparent_ns, delay_ns, age_ns
    memset(out, 0, sizeof(CacheAnswer))
    memset(&w, 0, sizeof(w))
    out.modified_s = -1
    answer_directives(data, head, &w, out)
    if field_find(data, head.headers, head.header_count, 0, FIELD_VARY) >= 0:
        out.flags |= ANSWER_VARY
    if field_date(data, head.headers, head.header_count, FIELD_LAST_MODIFIED, got_s, &out.modified_s):
        out.flags |= ANSWER_VALIDATOR
    else:
        out.modified_s = -1
    if field_find(data, head.headers, head.header_count, 0, FIELD_ETAG) >= 0:
        out.flags |= ANSWER_VALIDATOR
    if head.first[HEADER_DATE] >= 0 and not http_date_parse(data + head.headers[head.first[HEADER_DATE]].value_off,
                                                            head.headers[head.first[HEADER_DATE]].value_len, got_s, &date_s):
        date_s = got_s
    # RFC 9111 4.2.3.
    age_ns = age_value_ns(data, head)
    delay_ns = got_wall_ns - asked_wall_ns if got_wall_ns > asked_wall_ns else 0
    apparent_ns = <uint64_t>(got_s - date_s) * S_NS if got_s > date_s else 0
    if apparent_ns > CACHE_SECONDS_MAX * S_NS:
        apparent_ns = CACHE_SECONDS_MAX * S_NS
    out.initial_age_ns = age_ns + delay_ns if age_ns + delay_ns > apparent_ns else apparent_ns
    out.lifetime_ns = lifetime_of(data, head, &w, spec, date_s, got_s, out)
    out.store = answer_refused(data, head, method, ask_flags, spec, &w, out)
    # no-cache would have to be asked for each time: nothing is gained by keeping it. What the origin took over it does not count here,
    # or a slow origin could never be spared; it counts against freshness later on.
    if out.store == STORE_YES and (w.no_cache or out.lifetime_ns == 0
                                   or out.lifetime_ns <= (age_ns if age_ns > apparent_ns else apparent_ns)):
        out.store = STORE_FRESHNESS
    cache_bound(out, spec)


# --- what is stored, for one request -----------------------------------------------------------------------------------------------------

cdef int cache_age(const CacheAnswer* a, const CacheAsk* ask, const CacheSpec* spec, uint64_t resident_ns, bint calm) noexcept nogil:
    cdef uint64_t age_ns = a.initial_age_ns + resident_ns
    cdef uint64_t stale_ns, allowed_ns = 0
    cdef bint heeded = spec.flags & CACHE_HONOUR_NO_CACHE != 0
    if heeded and ask.flags & ASK_NO_CACHE:
        return AGE_STALE
    if heeded and ask.max_age_s < CACHE_SECONDS_MAX and age_ns > ask.max_age_s * S_NS:
        return AGE_STALE
    if age_ns < a.lifetime_ns and not (heeded and a.lifetime_ns - age_ns < ask.min_fresh_s * S_NS):
        return AGE_FRESH
    if a.flags & ANSWER_REVALIDATE:
        return AGE_NEVER
    stale_ns = age_ns - a.lifetime_ns if age_ns > a.lifetime_ns else 0
    allowed_ns = a.while_revalidate_ns
    if not a.flags & ANSWER_S_MAXAGE:
        if not calm and spec.stale_max_ns > allowed_ns:
            allowed_ns = spec.stale_max_ns
        if ask.max_stale_s * S_NS > allowed_ns:
            allowed_ns = ask.max_stale_s * S_NS
    if stale_ns < allowed_ns:
        return AGE_STALE_ALLOWED
    return AGE_STALE


cdef bint cache_rescues(const CacheAnswer* a, const CacheSpec* spec, uint64_t resident_ns, bint answered) noexcept nogil:
    cdef uint64_t age_ns = a.initial_age_ns + resident_ns
    cdef uint64_t allowed_ns = a.if_error_ns
    if age_ns < a.lifetime_ns:
        return True
    if a.flags & ANSWER_REVALIDATE:
        return False
    if not answered and not a.flags & ANSWER_S_MAXAGE and spec.stale_max_ns > allowed_ns:
        allowed_ns = spec.stale_max_ns
    return age_ns - a.lifetime_ns < allowed_ns


cdef bint next_tag(const uint8_t* text, uint32_t* at, uint32_t length, Span* out) noexcept nogil:
    """The next entity tag of a list, its opaque part with the quotes, without W/ (RFC 9110 8.8.3). False: none, or not a tag."""
    cdef uint32_t p = at[0]
    while p < length and (text[p] == c" " or text[p] == c"\t" or text[p] == c","):
        p += 1
    if p + 1 < length and text[p] == c"W" and text[p + 1] == c"/":
        p += 2
    if p >= length or text[p] != c'"':
        return False
    out.off = p
    p += 1
    while p < length and text[p] != c'"':
        p += 1
    if p >= length:
        return False
    p += 1
    out.len = p - out.off
    at[0] = p
    return True


cdef bint cache_not_modified(const uint8_t* data, const Header* headers, uint32_t count, const CacheAnswer* a, const uint8_t* none_match,
                             uint32_t none_match_len, bint since, int64_t modified_since_s) noexcept nogil:
    cdef int32_t i
    cdef uint32_t at = 0, n = 0
    cdef Span ours, theirs
    if none_match_len:
        if none_match_len == 1 and none_match[0] == c"*":
            return True
        i = field_find(data, headers, count, 0, FIELD_ETAG)
        if i < 0 or not next_tag(data + headers[i].value_off, &at, headers[i].value_len, &ours):
            return False
        while next_tag(none_match, &n, none_match_len, &theirs):
            if ours.len == theirs.len and memcmp(data + headers[i].value_off + ours.off, none_match + theirs.off, ours.len) == 0:
                return True
        return False
    return since and a.modified_s >= 0 and a.modified_s <= modified_since_s


cdef bint vary_named(const uint8_t* names, uint32_t n, const uint8_t* name, uint32_t length) noexcept nogil:
    cdef uint32_t start = 0, i
    for i in range(n + 1):
        if i == n or names[i] == c",":
            if i - start == length and memcmp(names + start, name, length) == 0:
                return True
            start = i + 1
    return False


cdef int32_t cache_vary_names(const uint8_t* data, const Header* headers, uint32_t count, uint8_t* out, uint32_t cap) noexcept nogil:
    cdef uint8_t name[CACHE_VARY_BYTES_MAX]
    cdef uint32_t at, end, k, n = 0
    cdef int32_t i = field_find(data, headers, count, 0, FIELD_VARY)
    cdef Span element
    while i >= 0:
        at = headers[i].value_off
        end = at + headers[i].value_len
        while next_element(data, &at, end, &element):
            if element.len == 0:
                continue
            if element.len > sizeof(name) or not is_token(data + element.off, element.len) or data[element.off] == c"*":
                return -1
            for k in range(element.len):
                name[k] = fold(data[element.off + k])
            if vary_named(out, n, name, element.len):
                continue
            if n + element.len + 1 > cap:
                return -1
            if n:
                out[n] = c","
                n += 1
            memcpy(out + n, name, element.len)
            n += element.len
        i = field_find(data, headers, count, <uint32_t>i + 1, FIELD_VARY)
    return <int32_t>n
