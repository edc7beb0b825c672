# What a worker may ask of the kernel: see confine.h. Owns: the two steps there, neither of which has a way back.
import os

cdef extern from "confine.h" nogil:
    ctypedef struct scrubber_program:
        pass
    void scrubber_no_rings_program(scrubber_program* p)
    void scrubber_serving_program(scrubber_program* p)
    int scrubber_confine(void (*write)(scrubber_program*) noexcept nogil)


def confine_start() -> None:
    """Before the loop is made: no io_uring. OSError: the kernel does not do that."""
    _confined(scrubber_confine(scrubber_no_rings_program))


def confine() -> None:
    """From now on this process has the system calls of a serving worker. OSError."""
    _confined(scrubber_confine(scrubber_serving_program))


cdef object _confined(int error):
    if error:
        raise OSError(error, os.strerror(error))
