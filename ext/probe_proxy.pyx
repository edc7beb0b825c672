# Python faces of the PROXY protocol's parser and writer, for tests. Bytes are copied into exact allocations, so that a sanitizer sees the
# first byte read past the end.
from libc.stdlib cimport free


def probe_proxy_header(bytes data):
    """"more", "bad", or what the header says: addresses as 16 bytes, TLVs as bytes."""
    cdef ProxyHeader h
    cdef uint8_t* p = probe_copy(data)
    cdef int outcome = proxy_header_parse(p, <uint32_t>len(data), &h)
    free(p)
    if outcome != PROXY_OK:
        return "more" if outcome == PROXY_MORE else "bad"
    spans = {
        "authority": h.authority, "alpn": h.alpn, "unique_id": h.unique_id, "tls_version": h.tls_version,
        "tls_cipher": h.tls_cipher, "tls_name": h.tls_name, "vpc_endpoint": h.vpc_endpoint,
        "tls_signature": h.tls_signature, "tls_key": h.tls_key, "netns": h.netns,
    }
    found = {name: data[span["off"]:span["off"] + span["len"]] for name, span in spans.items() if span["len"]}
    if h.tls:
        found["tls"] = (h.tls_client, h.tls_verify)
    others = [h.others[i] for i in range(h.other_count)]
    if others:
        found["others"] = [
            (bool(each["inner"]), each["kind"], data[each["value"]["off"]:each["value"]["off"] + each["value"]["len"]]) for each in others
        ]
        found["others_left_out"] = h.others_left_out
    if h.named:
        found["source"] = ((<const char*>h.address.bytes)[:16], h.port)
        found["destination"] = ((<const char*>h.destination.bytes)[:16], h.destination_port)
    return found | {"length": h.length, "version": h.version}


def probe_proxy_write(int version, source=None, destination=None):
    """The header that names (16 bytes, port) as source and as destination; None: there is none to name."""
    cdef uint8_t out[PROXY_WRITE_BYTES_MAX]
    cdef Address a
    cdef Address d
    cdef uint32_t n
    if source is None:
        n = proxy_header_write(version, NULL, 0, NULL, 0, out)
    else:
        a = probe_address(source[0])
        d = probe_address(destination[0])
        n = proxy_header_write(version, &a, source[1], &d, destination[1], out)
    return (<const char*>out)[:n]
