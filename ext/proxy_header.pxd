# PROXY protocol v1 and v2 (haproxy.org proxy-protocol.txt): bytes in, an answer out. Knows no socket, allocates nothing.
# Who may send a header is not decided here: a listener reads one from its listed peers only (client.pyx).
cdef enum:
    PROXY_OK = 0
    PROXY_MORE = 1              # sound so far, not complete
    PROXY_BAD = 2

    PROXY_V1_BYTES_MAX = 107    # the line with its CRLF
    PROXY_HEADER_BYTES_MAX = 8192   # the cap on what v2's length field may announce, the 16 bytes before it included
    PROXY_UNIQUE_ID_BYTES_MAX = 128
    PROXY_WRITE_BYTES_MAX = 107     # the longest header that we write
    PROXY_OTHERS_MAX = 8        # TLVs kept that have no field of their own

# A TLV that we have no name for. `inner`: it stood in the SSL TLV.
cdef struct ProxyTlv:
    uint8_t kind
    bint inner
    Span value

cdef struct ProxyHeader:
    uint32_t length             # bytes of the whole header; the connection's own bytes follow
    uint8_t version             # 1 or 2
    bint named                  # names a client; else (LOCAL, UNKNOWN, a family that is not IP) the socket's own addresses count
    uint16_t port
    uint16_t destination_port
    Address address
    Address destination
    Span authority              # TLVs, first of each type; len 0: none
    Span alpn
    Span unique_id
    Span tls_version
    Span tls_cipher
    Span tls_name               # common name of the client's certificate
    Span tls_signature          # algorithms of the certificate that the client was shown
    Span tls_key
    Span netns
    Span vpc_endpoint           # AWS
    bint tls                    # there is an SSL TLV: what it says of the connection, of the first one
    uint8_t tls_client          # bits: over TLS, with a client's certificate in this connection, in this session
    uint32_t tls_verify         # 0: that certificate was found good
    uint32_t other_count
    uint32_t others_left_out    # beyond PROXY_OTHERS_MAX
    ProxyTlv others[8]          # PROXY_OTHERS_MAX

# length: bytes at hand, which may go beyond the header. Refused is all that the protocol does not allow, and a CRC32C that is wrong.
cdef int proxy_header_parse(const uint8_t* data, uint32_t length, ProxyHeader* out) noexcept nogil
# The header that names a client, into out[PROXY_WRITE_BYTES_MAX]; bytes written. address NULL: there is none to name (LOCAL, UNKNOWN).
cdef uint32_t proxy_header_write(int version, const Address* address, uint16_t port, const Address* destination,
                                 uint16_t destination_port, uint8_t* out) noexcept nogil
