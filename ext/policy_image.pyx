# _native.Policy: an image and its prefix images, mapped, checked and held. Owns the mappings; they live as long as the object, so whoever
# walks the policy holds the object. What is wrong with an image is PolicyRefused, never a crash.
import fcntl
import hashlib
import os

from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.buffer cimport PyBUF_READ
from posix.mman cimport MAP_FAILED, MAP_PRIVATE, PROT_READ, mmap, munmap

from scrubber.errors import PolicyRefused

cdef enum:
    PREFIX_SETS_MAX = 64
    GET_SEALS = 1034            # F_GET_SEALS of linux/fcntl.h: not every Python has the name
    SEALS_WANTED = 14           # F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE

cdef struct Mapping:
    void* base
    size_t bytes


cdef class PolicyImage:
    """A policy in memory: `fd` is the image's sealed memfd, `prefix_fds` those of its prefix images in order. Raises PolicyRefused."""
    cdef Policy policy
    cdef Mapping mappings[PREFIX_SETS_MAX + 1]
    cdef int mapped
    cdef Patterns patterns          # of its routes
    cdef TlsContexts tls

    def __init__(self, fd: int, prefix_fds=()):
        cdef Mapping* image = self.map(fd, sizeof(PolicyHeader), "policy")
        cdef const PolicyHeader* h = <const PolicyHeader*>image.base
        cdef Reason reason = policy_load(<const uint8_t*>image.base, image.bytes, &self.policy)
        if reason != NULL:
            raise PolicyRefused(reason.decode())
        self.check_digest(image, sizeof(PolicyHeader), <bytes>h.digest[:32], "policy")
        if len(prefix_fds) != h.prefix_sets:
            raise PolicyRefused(f"{len(prefix_fds)} prefix images came with it, {h.prefix_sets} belong to it")
        for index, prefix_fd in enumerate(prefix_fds):
            self.add_prefixes(index, prefix_fd)
        self.patterns = Patterns([self.text(self.policy.routes[i].path).encode() for i in range(h.routes.count)
                                  if self.policy.routes[i].match == ROUTE_PATTERN])
        self.policy.patterns = self.patterns.compiled
        self.tls = TlsContexts()
        self.tls.fill(&self.policy)
        self.policy.tls_areas = <void**>self.tls.areas
        self.policy.tls_origins = <void**>self.tls.origins

    def __dealloc__(self):
        cdef int i
        for i in range(self.mapped):
            munmap(self.mappings[i].base, self.mappings[i].bytes)

    cdef Mapping* map(self, int fd, size_t bytes_min, str what) except NULL:
        cdef Mapping* m = &self.mappings[self.mapped]
        try:
            seals = fcntl.fcntl(fd, GET_SEALS)
        except OSError as error:
            raise PolicyRefused(f"{what}: not a memfd") from error
        if seals & SEALS_WANTED != SEALS_WANTED:
            raise PolicyRefused(f"{what}: not sealed")
        m.bytes = os.fstat(fd).st_size
        if m.bytes < bytes_min:
            raise PolicyRefused(f"{what}: size")
        m.base = mmap(NULL, m.bytes, PROT_READ, MAP_PRIVATE, fd, 0)
        if m.base == MAP_FAILED:
            raise PolicyRefused(f"{what}: cannot be mapped")
        self.mapped += 1
        return m

    cdef int check_digest(self, Mapping* m, size_t begin, bytes wanted, str what) except -1:
        body = PyMemoryView_FromMemory(<char*>m.base + begin, m.bytes - begin, PyBUF_READ)
        if hashlib.sha256(body).digest() != wanted:
            raise PolicyRefused(f"{what}: digest")
        return 0

    cdef int add_prefixes(self, int index, int fd) except -1:
        cdef str what = f"prefix set {index}"
        cdef Mapping* m = self.map(fd, sizeof(PrefixHeader), what)
        cdef const PrefixHeader* h = <const PrefixHeader*>m.base
        if not prefixes_load(<const uint8_t*>m.base, m.bytes, &self.policy.prefixes[index]) or h.prefix_id != <uint32_t>index:
            raise PolicyRefused(what)
        self.check_digest(m, sizeof(PrefixHeader), <bytes>h.digest[:32], what)
        self.policy.prefix_sets += 1
        return 0

    cdef str text(self, Span span):
        return (<const char*>self.policy.text)[span.off:span.off + span.len].decode()

    @property
    def generation(self) -> int:
        return self.policy.header.generation

    @property
    def enforce(self) -> bool:
        return bool(self.policy.header.enforce)

    @property
    def rules(self) -> list[str]:
        """Names, "mandate/rule", by rule index."""
        return [self.text(self.policy.rules[i].name) for i in range(self.policy.header.rules.count)]

    @property
    def areas(self) -> dict[str, int]:
        """Name → stable index in masks and counters."""
        return {self.text(self.policy.areas[i].name): self.policy.areas[i].area_id for i in range(self.policy.header.areas.count)}


# The C struct has the name that the class is to have in Python.
globals()["Policy"] = PolicyImage
