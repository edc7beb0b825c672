# The compiled policy: what gateway file and mandates say, one contiguous image in a sealed memfd. Written by scrubber/mandate/compile.py,
# bounds-checked here before any worker walks it; compiler and loader distrust each other. All integers little-endian, natural alignment.
cdef struct Section:
    uint32_t offset             # from the start of the image, multiple of 8
    uint32_t count              # entries (bytes for TEXT and SOURCE)

cdef struct PolicyHeader:       # 320 bytes
    uint64_t magic              # "SCRUBPOL"
    uint32_t layout_version
    uint32_t header_bytes       # 320
    uint64_t total_bytes
    uint64_t generation
    uint8_t digest[32]          # SHA-256 over all after the header
    Section listeners
    Section areas
    Section hosts
    Section pools
    Section origins
    Section rules
    Section area_rules          # uint16: rule indexes, request phase
    Section conditions
    Section rungs
    Section routes
    Section pages
    Section edits
    Section parts
    Section certificates
    Section text                # bytes that Span fields point into
    Section source              # JSON of the gateway file and mandates it was made of: a new supervisor finds everything here
    uint32_t prefix_sets        # how many prefix images belong to it
    uint32_t enforce            # 0: dry run, decides and records and touches nothing
    uint32_t connections_max    # a worker
    uint32_t connections_client_max
    uint32_t tarpit_max         # a worker
    uint32_t default_area       # index into areas, 0xFFFFFFFF: none (421)
    uint64_t never_block        # prefix set index + 1
    uint32_t log_lines          # 0: no access lines are wanted
    uint32_t log_pass_per_s     # lines of requests that passed and were served, a worker; 0: all
    Rate handshakes_client      # TLS handshakes of one client, over all workers
    uint32_t http2_streams_max  # concurrent, a connection
    uint32_t reserved[15]

cdef struct ListenerSpec:       # 128 bytes
    uint32_t listener_id        # stable: position in the plan of listener fds
    uint32_t trusted            # prefix set index + 1 of trusted proxies; 0: none
    uint32_t default_area       # area index, 0xFFFFFFFF: the policy's
    uint32_t port
    uint64_t areas[4]           # mask of the areas reachable here
    Span rules                  # into area_rules: connection rules asked at accept (all areas here agree)
    uint32_t scheme             # 0 http, 1 https
    uint32_t proxy              # prefix set index + 1 of peers that name their client by the PROXY protocol; 0: none
    uint64_t handshake_ns       # accept to TLS
    uint32_t tls                # LISTENER_*
    uint32_t reserved[13]

cdef enum:
    LISTENER_TLS = 1
    LISTENER_TLS_STRICT = 2     # a name that no area has is refused
    LISTENER_TLS_13 = 4         # nothing older
    LISTENER_HTTP2 = 8          # offered (ALPN), or with prior knowledge in clear text
    LISTENER_TLS_FLAGS = 15

cdef struct CertificateSpec:    # 64 bytes; a certificate with those above it, and its key
    Span chain                  # into text: PEM
    Span key                    # PEM
    Span staple                 # DER: an OCSP response; len 0: none
    uint32_t reserved[10]

# What an upgraded connection may take; 0: no limit.
cdef struct TunnelSpec:         # 48 bytes
    Span upgrades               # into text: protocols in lower case, each with a comma behind it; none: Upgrade is dropped
    uint64_t bytes_max          # each way
    uint64_t idle_ns            # without a byte
    uint64_t message_ns         # without a message (pings and pongs are none)
    uint64_t lifetime_ns
    uint32_t client_max         # of one client, over all workers
    uint32_t total_max          # over all workers

cdef struct CacheSpec:          # 64 bytes; how answers are kept: an area's, later a route's
    uint32_t flags              # CACHE_*; 0: nothing is kept
    uint32_t object_bytes_max   # of a body
    uint64_t ttl_max_ns         # 0: no bound of ours
    uint64_t ttl_default_ns     # for answers that say nothing; 0: these are not kept
    uint64_t stale_max_ns       # given stale for so long while the origin is in distress
    uint64_t wait_ns            # for another's fetch
    uint32_t wait_max           # requests that do, a worker
    uint32_t reserved[5]

cdef enum:
    CACHE_ON = 1
    CACHE_HONOUR_NO_CACHE = 2   # what clients say against caching counts
    CACHE_STATUS_FIELD = 4      # send Cache-Status (RFC 9211)

cdef struct AreaSpec:           # 512 bytes
    uint32_t area_id            # 0..AREAS_MAX-1: stable index in counters, masks, states
    uint32_t flags              # AREA_*
    Span name                   # into text
    Span rules                  # into area_rules: request-phase rules
    Span connection_rules       # into area_rules: charged with a connection's first request here, unless the listener asked them at accept
    uint32_t pool               # index into pools: the area's own; its named ones follow it
    uint32_t reserved_pool
    Http1Limits http1
    uint32_t account_kind       # ACCOUNT_*
    Span account_name           # into text
    uint64_t body_bytes_max
    uint64_t head_ns            # accept (or first byte) to complete head
    uint64_t idle_ns            # keep-alive between requests
    uint64_t connect_ns
    uint64_t read_ns            # origin: to the first byte, and between reads
    uint64_t write_ns           # client: no progress on the answer
    uint64_t body_grace_ns      # before the minimum rate is asked
    uint64_t body_bytes_s_min   # of request bodies, and of answers that the client reads
    uint64_t tarpit_ns
    uint32_t origin_connections_max   # pooled and in use, a worker
    uint32_t origin_wait_max    # requests waiting for one, a worker
    uint64_t origin_wait_ns
    uint64_t origin_idle_ns     # pooled connection kept
    uint64_t clients_share_ppm  # proportion: of known clients that may be blocked
    uint64_t blocks_max
    uint64_t block_ttl_max_ns
    TunnelSpec tunnel
    Span via                    # into text: our pseudonym; len 0: none
    Span server                 # into text: what answers say in Server; len 0: the origin's own, unless AREA_SERVER_HIDE
    uint32_t ranges_max         # byte ranges of a request
    uint32_t heads_reserved
    CacheSpec cache
    Span routes                 # into routes: the first that matches wins
    Span request_edits          # into edits; a route has them joined with its own
    Span response_edits
    Span error_pages            # into pages: for our own answers; the one for all others last
    uint32_t maintenance        # page index + 1; 0: none
    uint32_t https_page         # page index + 1: what is asked in clear text is sent to https; 0: it is served
    Span certificates           # into certificates; len 0: no TLS here
    Span client_authorities     # into text: PEM of who may vouch for a client
    Span hello_rules            # into area_rules: asked with a ClientHello
    uint32_t client_certificate  # TLS_CLIENT_*
    uint32_t reserved_tls
    uint8_t reserved[120]

cdef enum:
    AREA_RATELIMIT_FIELDS = 1   # send RateLimit, RateLimit-Policy
    AREA_HOST_KEEP = 2          # pass the client's Host on (else the origin's own)
    AREA_SPLICE = 4             # large bodies go from socket to socket in the kernel
    AREA_VIA_RESPONSE = 256     # Via in answers too
    AREA_SERVER_HIDE = 512      # no Server field in answers
    AREA_NONE = 0xFFFFFFFF      # no area

cdef struct HostSpec:           # 16 bytes; sorted by (length, bytes); "*.example.org" is stored as ".example.org"
    Span name
    uint32_t area               # index into areas
    uint32_t reserved

cdef struct PoolSpec:           # 128 bytes; origins that may take each other's place
    uint32_t pool_id            # 0..POOLS_MAX-1: its place in the core, kept over reloads
    uint32_t balance            # BALANCE_*
    Span name                   # into text; empty: an area's own
    Span origins                # into origins; may be empty (names that do not resolve)
    Span hash_header            # BALANCE_HASH_HEADER: name in lower case
    uint64_t slow_start_ns      # a new origin's weight grows for so long
    uint64_t eject_ns           # first time out after connect failures; doubles
    uint64_t eject_max_ns
    uint32_t eject_after        # connect failures in a row; 0: never
    uint32_t retry_ppm          # of the requests of 10 s
    uint32_t retry_floor        # tries in 10 s that are always allowed, a worker
    uint32_t reserved[15]

cdef enum:
    BALANCE_LEAST_CONNECTIONS = 0
    BALANCE_ROUND_ROBIN = 1
    BALANCE_HASH_CLIENT = 2
    BALANCE_HASH_HEADER = 3

cdef struct OriginSpec:         # 192 bytes
    uint32_t origin_id          # 0..ORIGINS_MAX-1: its place in the core, kept over reloads
    uint32_t family             # AF_INET, AF_INET6, AF_UNIX
    uint32_t address_bytes      # of sockaddr
    uint32_t connections_max    # 0: the area's
    uint8_t sockaddr[128]
    Span host                   # Host to send where the client's is not kept
    uint64_t key                # never 0; whose state an entry of the region ORIGINS is
    uint32_t weight             # 1..256
    uint32_t flags              # ORIGIN_*
    Span authorities            # into text: PEM of who may vouch for it (ORIGIN_TLS)
    Span tls_name               # whom its certificate has to name: a host, or an address
    uint32_t certificate        # that we show it: index into certificates + 1; 0: none
    uint32_t reserved

cdef enum:
    ORIGIN_BACKUP = 1           # only while no other is available
    ORIGIN_PROXY_V1 = 2         # the PROXY header that each connection begins with
    ORIGIN_PROXY_V2 = 4
    ORIGIN_TLS = 8
    ORIGIN_TLS_UNVERIFIED = 16
    ORIGIN_H2C = 32             # HTTP/2 in clear text, with prior knowledge

cdef enum:
    # Keys: one, or two of them combined.
    KEY_CLIENT = 1
    KEY_PREFIX = 2              # /24, /48
    KEY_FINGERPRINT = 3
    KEY_ACCOUNT = 4
    KEY_PATH = 5
    KEY_HOST = 6
    KEY_AREA = 7
    KEY_JA3 = 8
    KEY_JA4 = 9
    KEY_HTTP2 = 10

    UNIT_NONE = 0               # no limit: whatever matches is over it
    UNIT_REQUESTS = 1
    UNIT_BYTES = 2
    UNIT_CONNECTIONS = 3
    UNIT_CONCURRENT = 4
    UNIT_ORIGIN_NS = 5          # seconds of the origin's time, in ns
    UNIT_HANDSHAKES = 6         # of TLS, asked for
    UNIT_ABUSES = 7             # of HTTP/2: connections that were ended for what their client did

    CONDITION_METHOD = 1        # arg: bit mask over METHOD_*
    CONDITION_PATH = 2          # arg: MATCH_*, span
    CONDITION_HOST = 3
    CONDITION_HEADER = 4        # name span, value span, MATCH_*
    CONDITION_QUERY = 5
    CONDITION_CLIENT = 6        # arg: prefix set index + 1
    CONDITION_FINGERPRINT = 7   # arg: 64-bit value
    CONDITION_KNOWN = 8
    CONDITION_ACCOUNT = 9       # presents one
    CONDITION_RUSH = 10         # area-wide limits are shedding
    CONDITION_NEVER = 11        # cannot hold here (link_load until there is a link to watch)
    CONDITION_JA3 = 12
    CONDITION_HTTP2 = 14        # arg: 64-bit value
    CONDITION_JA4 = 13          # MATCH_EXACT, or MATCH_PARTS: each of its three parts a text or the beginning of one ("t13d*_*_e56*")

    MATCH_EXACT = 0
    MATCH_PREFIX = 1
    MATCH_SUFFIX = 2
    MATCH_CONTAINS = 3
    MATCH_PRESENT = 4
    MATCH_PARTS = 5

    RUNG_VALID = 1              # RungSpec.available: while the mandate is valid
    RUNG_EXPIRED = 2            # and after it expired (its on_expiry)

cdef struct ConditionSpec:      # 40 bytes; conditions of a rule: all must hold. any_next: this one or the next one.
    uint16_t kind
    uint8_t match
    uint8_t negate
    uint8_t any_next
    uint8_t reserved[3]
    uint64_t arg
    Span name
    Span value
    uint64_t pad

cdef struct RungSpec:           # 32 bytes
    uint8_t measure
    uint8_t available           # RUNG_*
    uint8_t reserved[6]
    uint64_t hold_ns            # how long before the next
    uint64_t ttl_ns             # block
    uint64_t pad

cdef struct RuleSpec:           # 192 bytes
    uint64_t id                 # never 0; first 8 bytes of SHA-256 over "mandate id NUL rule name": stable over reloads
    Span name                   # "mandate/rule", into text
    Span conditions
    Span rungs
    uint32_t key_a
    uint32_t key_b              # 0: none
    uint32_t unit
    uint32_t area_wide          # limits everyone together: sheds newcomers first
    Rate rate                   # CONCURRENT: burst is the number
    uint64_t calm_ns
    uint64_t debt_max_ns
    uint64_t areas[4]           # mask of the mandate's areas: what a block by this rule binds
    uint32_t newcomer_share_ppm  # of the burst, for area_wide
    uint32_t mandate            # index, for records
    uint64_t block_ttl_max_ns   # proportion: the tightest of all mandates over these areas
    uint64_t blocks_max
    uint64_t clients_share_ppm
    uint64_t expires_ns         # monotonic: when the mandate ends; no block outlives it
    uint8_t reserved[32]

# A loaded image and the prefix images that belong to it; pointers into read-only mappings.
cdef struct Policy:
    const uint8_t* base
    uint64_t bytes
    const PolicyHeader* header
    const ListenerSpec* listeners
    const AreaSpec* areas
    const HostSpec* hosts
    const PoolSpec* pools
    const OriginSpec* origins
    const RuleSpec* rules
    const uint16_t* area_rules
    const ConditionSpec* conditions
    const RungSpec* rungs
    const RouteSpec* routes
    const PageSpec* pages
    const EditSpec* edits
    const PartSpec* parts
    const CertificateSpec* certificates
    void** tls_areas            # SSL_CTX by area, NULL: no TLS; NULL: not made (a policy that only is looked at)
    void** tls_origins          # SSL_CTX by origin
    void** patterns             # compiled, by RouteSpec.pattern; NULL: not made (a policy that only is looked at)
    const uint8_t* text
    Prefixes prefixes[64]
    uint32_t prefix_sets

# Every offset, count, index and span checked. NULL: sound; else which check failed (a static string). The prefix images that belong to it
# are loaded into out.prefixes by the caller afterwards, all of them. base is 8-byte aligned; the digest is the caller's to check.
cdef const char* policy_load(const uint8_t* base, uint64_t nbytes, Policy* out) noexcept nogil
# Area index for a Host (exact, then the longest wildcard, then listener's, then policy's default); -1: none.
# An area that the listener does not reach counts as not named. Letters of any case; one dot at the end is dropped.
# The same, of a name that an area has; and whoever answers for the others.
cdef int32_t policy_area_named(const Policy* p, const ListenerSpec* listener, const uint8_t* host, uint32_t length) noexcept nogil
cdef int32_t policy_area_default(const Policy* p, const ListenerSpec* listener) noexcept nogil
cdef int32_t policy_area(const Policy* p, const ListenerSpec* listener, const uint8_t* host, uint32_t length) noexcept nogil
# Is any never-block address inside this prefix (plen in the 128-bit form; 128: the address itself)?
cdef bint policy_never_touches(const Policy* p, const Address* a, int plen) noexcept nogil
