# Python faces of what tunnels know of their bytes, for tests.
def probe_frames(pieces) -> list:
    """For each piece of one way's bytes, in order: whether it had a part of a message in it."""
    cdef Frames frames
    cdef bytes piece
    found = []
    memset(&frames, 0, sizeof(frames))
    for piece in pieces:
        found.append(bool(frames_feed(&frames, <const uint8_t*><const char*>piece, len(piece))))
    return found
