# Who a request is from: client address (trusted chains walked hop by hop), account, and the keys made of them.
cdef enum:
    ACCOUNT_NONE = 0
    ACCOUNT_HEADER = 1          # value of a header
    ACCOUNT_COOKIE = 2          # value of a cookie
    ACCOUNT_BEARER = 3          # `sub` of a bearer JWT; the whole token where it is none
    ACCOUNT_BASIC = 4           # user of basic auth
    ACCOUNT_CERTIFICATE = 5     # subject of the client's certificate (client.pyx: the head does not say it)
    CHAIN_HOPS_MAX = 32

# What the hop that named the client says of how that one came to it: places in data, empty where it says nothing. Of Forwarded the element
# that names the client; else X-Forwarded-Proto and -Host, as they are.
cdef struct Arrival:
    Span proto
    Span host

# Walk X-Forwarded-For, where there is none Forwarded (RFC 7239), from the right for as long as the hop is in trusted (NULL: nobody is).
# peer: proven by socket or PROXY. Rubbish, an unknown or obfuscated name ends the walk at the last proven hop.
# Returns PROOF_CHAIN when at least one hop was walked, else proof (and an empty arrival).
cdef int identity_chain(const uint8_t* data, const RequestHead* head, const Prefixes* trusted, const Address* peer, int proof,
                        Address* client, Arrival* arrival) noexcept nogil
# The same walk, every proven hop: the nearest first, the client last, into hops[CHAIN_HOPS_MAX]. Returns how many. arrival (NULL: not
# asked for): what Forwarded says.
cdef uint32_t identity_hops(const uint8_t* data, const RequestHead* head, const Prefixes* trusted, const Address* peer,
                            Address* hops, Arrival* arrival) noexcept nogil
# The account that a request presents: bytes in out (at most cap), 0: none. name: header or cookie name, lower case for a header.
cdef uint32_t identity_account(const uint8_t* data, const RequestHead* head, uint8_t kind, const uint8_t* name, uint32_t name_len,
                               uint8_t* out, uint32_t cap) noexcept nogil
