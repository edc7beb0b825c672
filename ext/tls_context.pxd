# TLS contexts: what certificates, keys and trusted authorities become for OpenSSL. Made when a policy is loaded, shared by all connections
# and by all policies that say the same.
cdef enum:
    TLS_CHAINS_MAX = 4          # of one area: RSA, ECDSA, and room for what comes

    TLS_CLIENT_NONE = 0         # AreaSpec.client_certificate
    TLS_CLIENT_ASKED = 1        # one that does not verify is refused, none is let through
    TLS_CLIENT_REQUIRED = 2

cdef class TlsContext:
    cdef SSL_CTX* context
    cdef scrubber_staples staples
    cdef object __weakref__
    cdef int use(self, bytes chain, bytes key, bytes staple, str what) except -1
    cdef int trust(self, bytes authorities, bint server, str what) except -1
