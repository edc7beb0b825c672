"""What an attack did, by kind and second, and which addresses sent how much of it.

Owns: the columns of the attack figures. Invariant: an outcome is booked in the second in which its attempt was made,
so that a share of a second is a share of the very requests that were tried in it.
"""
from collections import Counter
from collections.abc import Iterable

COLUMNS = (
    "attempted",  # a request that was tried, or a connection, where the attack is one of connections
    "sent",  # bytes of it were handed to the kernel
    "served",  # 2xx or 3xx, whole
    "throttled",  # 429
    "denied",  # 403
    "other",  # any other answer: 4xx, 5xx, cut short
    "reset",  # closed or reset instead of an answer
    "refused",  # connect failed
    "timeouts",  # no answer within 8 s, or no connection within its kind's `connect_s`
    "held",  # not tried: every connection of that address was waiting for an answer
    "unsent",  # not tried: this machine could not keep up
    "open",  # connections held open, the most in that second (attacks of connections)
)
(ATTEMPTED, SENT, SERVED, THROTTLED, DENIED, OTHER, RESET, REFUSED, TIMEOUTS, HELD, UNSENT, OPEN) = range(len(COLUMNS))

Row = list[int]


class Tally:
    """Rows by (kind, second), requests sent by (kind, address), and how long held connections lived."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], Row] = {}
        self.sent_by: Counter[tuple[str, str]] = Counter()
        self.lifetimes: dict[str, list[float]] = {}

    def row(self, kind: str, second: int) -> Row:
        """The row to count in."""
        row = self.rows.get((kind, second))
        if row is None:
            row = self.rows[kind, second] = [0] * len(COLUMNS)
        return row

    def since(self, second: int) -> list[list[object]]:
        """[kind, second, columns…] from that second on; whole values, so a row that is read twice does no harm."""
        return [[kind, at, *row] for (kind, at), row in self.rows.items() if at >= second]

    def senders(self) -> list[list[object]]:
        """[kind, address, requests sent] of each address that sent any."""
        return [[kind, address, sent] for (kind, address), sent in self.sent_by.items()]

    def take_lifetimes(self) -> dict[str, list[float]]:
        """Seconds that held connections lived, by kind, since last asked."""
        taken, self.lifetimes = self.lifetimes, {}
        return taken


def add(rows: Iterable[Row]) -> Row:
    """Column sums; the highest, of what is a level."""
    total = [0] * len(COLUMNS)
    for row in rows:
        for column, value in enumerate(row):
            total[column] = max(total[column], value) if column == OPEN else total[column] + value
    return total
