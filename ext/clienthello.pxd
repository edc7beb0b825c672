# TLS ClientHello (RFC 8446 4.1.2, RFC 5246 7.4.1.2) and what tells clients apart by it: JA3 (salesforce/ja3) and JA4, the TLS client part
# only (FoxIO-LLC/ja4, technical_details/JA4.md). Bytes in, an answer out. Knows no socket, no OpenSSL state, allocates nothing.
cdef enum:
    HELLO_OK = 0
    HELLO_MORE = 1              # sound so far, not complete
    HELLO_BAD = 2
    HELLO_PLAIN = 3             # the first byte begins no TLS record: HTTP in clear text, perhaps

    HELLO_BYTES_MAX = 16384     # of the message, its 4 bytes of type and length included
    HELLO_CIPHERS_MAX = 512     # more of each is refused: nobody's client offers so many
    HELLO_EXTENSIONS_MAX = 128
    HELLO_GROUPS_MAX = 128
    HELLO_SIGNATURES_MAX = 128
    HELLO_NAME_BYTES_MAX = 255

    JA3_BYTES = 32              # text: hex digits of an MD5
    JA4_BYTES = 36              # text: t13d1516h2_8daaf6152771_e5627efa2ab1

cdef struct ClientHello:
    uint16_t version            # legacy_version
    uint16_t version_max        # of supported_versions, GREASE left out; without that extension legacy_version
    bint has_name               # there is a server_name extension
    Span name                   # its host_name, places in the message; len 0: none
    Span alpn                   # the first protocol offered
    uint16_t ciphers
    uint16_t extensions
    uint16_t groups
    uint16_t signatures
    uint16_t formats
    uint16_t cipher[512]        # HELLO_CIPHERS_MAX; in the order sent, GREASE left out (RFC 8701), as in all of these
    uint16_t extension[128]     # HELLO_EXTENSIONS_MAX
    uint16_t group[128]
    uint16_t signature[128]
    uint8_t format[255]

# The first message of a TLS connection from data[length], which may go beyond it. What came in one record stays in place; what came in
# several is put together in scratch[HELLO_BYTES_MAX]. used: bytes of the records. HELLO_*; message and message_len are set for HELLO_OK.
cdef int hello_gather(const uint8_t* data, uint32_t length, uint8_t* scratch, const uint8_t** message, uint32_t* message_len,
                      uint32_t* used) noexcept nogil
# Of a whole message. HELLO_OK or HELLO_BAD.
cdef int hello_parse(const uint8_t* message, uint32_t length, ClientHello* out) noexcept nogil
# Texts into out; False: this OpenSSL has no such digest (MD5 under FIPS).
cdef bint hello_ja3(const ClientHello* hello, uint8_t* out) noexcept nogil
cdef bint hello_ja4(const uint8_t* message, const ClientHello* hello, uint8_t* out) noexcept nogil
