# Routes in the compiled policy: what an area answers itself, what it changes on the way, and where the rest goes. Checked by
# route_image.pyx; written by scrubber/mandate/compile_routes.py.
cdef enum:
    ROUTES_AREA_MAX = 256       # routes of one area
    EDITS_MAX = 96              # edits of one head
    PARTS_MAX = 256             # parts of one text
    PAGE_BYTES_MAX = 65536      # of a page's body
    ROUTE_PATH_BYTES_MAX = 1024
    ROUTE_NONE = 0xFFFFFFFF

    ROUTE_EXACT = 0
    ROUTE_PREFIX = 1
    ROUTE_PATTERN = 2

    PAGE_FILE = 1               # for GET and HEAD, with validators (ETag, Last-Modified)

    EDIT_DROP = 0               # the other side's fields of that name do not pass
    EDIT_PUT = 1                # one field, written after those that pass

    # What a part of a text is. Which ones may stand where: route_image.pyx.
    PART_TEXT = 0
    PART_CLIENT_IP = 1
    PART_REQUEST_ID = 2
    PART_HOST = 3               # as the client named it, without port
    PART_SCHEME = 4
    PART_PATH = 5               # Location: as sent; rewrite: as rules see it
    PART_QUERY = 6              # with its "?"; nothing where there is none
    PART_QUERY_MORE = 7         # the same with "&", behind a query that the text begins
    PART_REST = 8               # the path behind what the route took off
    PART_GROUP = 9              # $1 to $9 of the pattern
    PART_CASE = 10
    PART_STATUS = 11
    PARTS = 12

cdef struct PartSpec:           # 16 bytes
    uint32_t kind               # PART_*
    uint32_t group              # PART_GROUP: 1..9
    Span text                   # PART_TEXT: into text

cdef struct EditSpec:           # 24 bytes
    uint32_t op                 # EDIT_*
    uint32_t reserved
    Span name                   # into text; a token
    Span value                  # EDIT_PUT: into parts

cdef struct PageSpec:           # 80 bytes: an answer of our own
    uint32_t status             # of an error page: for which status, 0: for all others
    uint32_t flags              # PAGE_*
    Span content_type           # into text
    Span body                   # into parts
    Span location               # into parts; redirects
    Span etag                   # into text, quotes included
    Span modified               # into text, IMF-fixdate
    uint64_t modified_s
    uint32_t retry_s            # Retry-After; 0: none
    uint32_t allow              # maintenance: prefix set index + 1 of clients that pass
    uint8_t reserved[16]

cdef struct RouteSpec:          # 128 bytes
    uint32_t match              # ROUTE_EXACT, ROUTE_PREFIX, ROUTE_PATTERN; over the normalised path
    uint32_t methods            # mask over METHOD_*; 0: any
    Span path                   # into text: path, prefix or pattern
    Span host                   # into text, lower case; ".example.org" stands for all below it; len 0: any
    uint32_t pattern            # ROUTE_PATTERN: its place among the policy's patterns
    uint32_t groups             # highest group that a text of it names
    uint32_t pool               # where it goes; index into pools
    uint32_t page               # page index + 1: answered here; 0: goes to the pool
    uint32_t maintenance        # page index + 1; 0: none
    uint32_t strip_whole        # strip only whole segments
    Span strip                  # into text: what PART_REST is without
    Span rewrite                # into parts: the path that the origin gets; len 0: as sent
    Span request_edits          # the area's and its own, joined
    Span response_edits
    uint64_t body_bytes_max
    uint64_t read_ns
    uint8_t reserved[32]
