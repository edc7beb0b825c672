# Proportion: what no block may exceed, asked before each one, by rules and by hand. Reads the tables, changes nothing.
# Invariants: a block that would take more than clients_share_max of the clients seen healthy is refused in every area that it binds; so is
# one on an address that several healthy people share, and one by a fingerprint that many known clients have.

cdef enum:
    # Why a block was refused, or a rung passed over; refusal_text() has the words.
    REFUSAL_NONE = 0
    REFUSAL_UNAVAILABLE = 1
    REFUSAL_SOURCE = 2
    REFUSAL_AREA = 3
    REFUSAL_EXPIRED = 4
    REFUSAL_BLOCKS_MAX = 5
    REFUSAL_SHARE = 6
    REFUSAL_SHARED_ADDRESS = 7
    REFUSAL_SHARED_FINGERPRINT = 8
    REFUSAL_RECORD = 9
    REFUSAL_NEVER = 10
    REFUSAL_TTL = 11
    REFUSAL_BUSY = 12

ctypedef const char* Text


cdef Text refusal_text(int refusal) noexcept nogil:
    if refusal == REFUSAL_UNAVAILABLE:
        return "not available here"
    if refusal == REFUSAL_AREA:
        return "area of another mandate"
    if refusal == REFUSAL_EXPIRED:
        return "mandate expired"
    if refusal == REFUSAL_BLOCKS_MAX:
        return "blocks_max"
    if refusal == REFUSAL_SHARE:
        return "clients_share_max"
    if refusal == REFUSAL_SHARED_ADDRESS:
        return "shared address"
    if refusal == REFUSAL_SHARED_FINGERPRINT:
        return "shared fingerprint"
    if refusal == REFUSAL_RECORD:
        return "no room to record it"
    if refusal == REFUSAL_NEVER:
        return "never-block"
    if refusal == REFUSAL_TTL:
        return "block_ttl_max"
    if refusal == REFUSAL_BUSY:
        return "table busy"
    return "not a source"


# What the block table's own refusal is called.
cdef inline int refusal_of(int answer) noexcept nogil:
    if answer == BLOCK_REFUSED_FULL:
        return REFUSAL_BLOCKS_MAX
    if answer == BLOCK_REFUSED_TTL:
        return REFUSAL_TTL
    return REFUSAL_BUSY if answer == BLOCK_REFUSED_BUSY else REFUSAL_SOURCE


cdef int proportion_fingerprint(Shared* s, const BlockEntry* e, uint64_t share_ppm, uint32_t area) noexcept nogil:
    cdef AreaState* state = &s.control.areas[area]
    cdef uint64_t fingerprint, key, clients
    memcpy(&fingerprint, e.address.bytes, 8)
    key = known_fingerprint_key(&s.secret, area, fingerprint)
    clients = known_fingerprint_clients(&s.known, key)
    if known_fingerprint_shared(&s.known, state, key):
        return REFUSAL_SHARED_FINGERPRINT
    return REFUSAL_SHARE if clients and not share_left(state, clients, share_ppm) else REFUSAL_NONE


cdef inline bint share_left(const AreaState* state, uint64_t more, uint64_t share_ppm) noexcept nogil:
    cdef uint64_t most = mul_div_u64(load_u64(&state.known_total), share_ppm, 1000000)
    return add_saturating_u64(load_u64(&state.known_blocked), more) <= most


cdef int proportion_clients(Shared* s, const BlockEntry* e, uint64_t client_key, uint64_t share_ppm, uint32_t area,
                            uint64_t now_ns) noexcept nogil:
    cdef uint32_t i, clients = blocks_clients(e)
    cdef uint64_t known = 0, key
    cdef Address client
    for i in range(clients if clients else 1):
        if clients:
            blocks_client(e, i, &client)
            client_key = address_key(&s.secret, &client)
        key = known_key(&s.secret, area, client_key)
        if known_shared(&s.known, key, now_ns):
            return REFUSAL_SHARED_ADDRESS
        known += known_was(&s.known, key, now_ns)
    return REFUSAL_SHARE if known and not share_left(&s.control.areas[area], known, share_ppm) else REFUSAL_NONE


# client_key: who brought the block about; looked at where its prefix is too wide to look through (0: nobody did).
cdef int proportion_refusal(Shared* s, const BlockEntry* e, uint64_t client_key, uint64_t share_ppm, uint64_t now_ns) noexcept nogil:
    cdef int refusal = REFUSAL_NONE
    cdef uint32_t area
    for area in range(AREAS_MAX):
        if not e.areas[area >> 6] >> (area & 63) & 1:
            continue
        if e.kind == SOURCE_CLIENT or e.kind == SOURCE_PREFIX:
            refusal = proportion_clients(s, e, client_key, share_ppm, area, now_ns)
        elif e.kind == SOURCE_FINGERPRINT:
            refusal = proportion_fingerprint(s, e, share_ppm, area)
        if refusal != REFUSAL_NONE:
            return refusal
    return REFUSAL_NONE


def block_refused(memory: Memory, kind: str, source: str, areas: list, clients_share_max_ppm: int) -> str | None:
    """Why a block by hand would be out of proportion: what the tables say of its clients; None: nothing. ValueError: source is none."""
    cdef BlockEntry e
    cdef int refusal
    memset(&e, 0, sizeof(e))
    parse_source(kind, source, &e)
    parse_areas(areas, e.areas)
    refusal = proportion_refusal(memory.pointer(), &e, 0, clients_share_max_ppm, time.monotonic_ns())
    return None if refusal == REFUSAL_NONE else refusal_text(refusal).decode()
