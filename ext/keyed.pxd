# Keyed hash: SipHash-1-3 (Aumasson & Bernstein 2012), so that nobody without the secret can make keys collide.
cdef uint64_t siphash(const HashKey* key, const void* data, size_t length) noexcept nogil
# Hash of two words: a rule's id and a key, or two keys of a pair. Order matters.
cdef uint64_t siphash_pair(const HashKey* key, uint64_t a, uint64_t b) noexcept nogil
# Hash of a client's address (its client form) or any other: what Facts.client_key and prefix_key hold, and known_key is made of.
cdef uint64_t address_key(const HashKey* key, const Address* a) noexcept nogil
