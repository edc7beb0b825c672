# Python face of the ClientHello parser and its fingerprints, for tests and tools. Bytes are copied into exact allocations, so that a
# sanitizer sees the first byte read past the end.
from libc.stdlib cimport free, malloc


def probe_hello(bytes data):
    """"more", "bad", "plain", or what the ClientHello says and is known by; `used`: bytes of its records."""
    cdef ClientHello hello
    cdef uint8_t ja3[JA3_BYTES]
    cdef uint8_t ja4[JA4_BYTES]
    cdef const uint8_t* message = NULL
    cdef uint32_t length = 0, used = 0
    cdef uint8_t* scratch = <uint8_t*>malloc(HELLO_BYTES_MAX)
    cdef uint8_t* p = probe_copy(data)
    cdef int outcome
    if scratch == NULL:
        free(p)
        raise MemoryError
    try:
        outcome = hello_gather(p, <uint32_t>len(data), scratch, &message, &length, &used)
        if outcome == HELLO_OK:
            outcome = hello_parse(message, length, &hello)
        if outcome != HELLO_OK:
            return "more" if outcome == HELLO_MORE else "plain" if outcome == HELLO_PLAIN else "bad"
        found = {
            "used": used, "length": length, "version": hello.version, "version_max": hello.version_max,
            "name": (<const char*>message)[hello.name.off:hello.name.off + hello.name.len],
            "alpn": (<const char*>message)[hello.alpn.off:hello.alpn.off + hello.alpn.len],
        }
        if hello_ja3(&hello, ja3):
            found["ja3"] = (<const char*>ja3)[:JA3_BYTES].decode()
        if hello_ja4(message, &hello, ja4):
            found["ja4"] = (<const char*>ja4)[:JA4_BYTES].decode("latin-1")
        return found
    finally:
        free(scratch)
        free(p)
