def load(
    target: str,
    port: int,
    sources: list[str],
    connections: int,
    request: bytes,
    kept: bool,
    requests_max: int,
    seconds_max: float,
    rate_per_s: float = 0,
    message: bytes = b"",
    reply: bytes = b"",
) -> dict[str, float]: ...
def serve(listener_fd: int, stop_fd: int, response: bytes) -> None: ...
