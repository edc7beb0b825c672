def load(
    target: str,
    port: int,
    sources: list[str],
    connections: int,
    request: bytes,
    resumed: bool,
    requests_max: int,
    seconds_max: float,
) -> dict[str, float | str]: ...
