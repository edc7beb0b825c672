"""What heads say of this gateway: `via`, `via_response`, `server`, at the top of the file or in an area.

Owns the two texts' forms. What an area leaves out is the top level's.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from scrubber.config.walk import Doc, Reads
from scrubber.errors import ValueRefused

VIA_EXPECTED = 'a pseudonym as "scrubber" or "edge-1:443" (RFC 9110 7.6.3), or "" for none'
SERVER_EXPECTED = '"keep", "hide", or the text to send: at most 128 printable ASCII characters'
_PSEUDONYM = re.compile(r"(?:[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}(?::[0-9]{1,5})?)?")
_PRINTABLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,126}[\x21-\x7e])?")


def _parse_via(value: Any) -> str:
    if not isinstance(value, str) or not _PSEUDONYM.fullmatch(value):
        raise ValueRefused(f"{value!r} is not a pseudonym", expected=VIA_EXPECTED)
    return value


def _parse_server(value: Any) -> str:
    if not isinstance(value, str) or not _PRINTABLE.fullmatch(value):
        raise ValueRefused(f"{value!r} is no value of a Server field", expected=SERVER_EXPECTED)
    if value.lower() in ("keep", "hide") and value not in ("keep", "hide"):
        raise ValueRefused(f"{value!r} is not known here", expected=SERVER_EXPECTED, hint=f'write "{value.lower()}"')
    return value


VIA = Reads(_parse_via, "scrubber", "a pseudonym, or `\"\"`")
SERVER = Reads(_parse_server, "keep", '`"keep"`, `"hide"`, or a text')

ViaName = Annotated[
    str,
    VIA,
    Doc(
        'What `Via` calls this gateway in requests to origins; `""` sends none of ours. Some origins answer otherwise '
        "where they see a Via: nginx does not compress (`gzip_proxied`).",
        '"edge-1"',
    ),
]
ViaResponse = Annotated[
    bool, Doc("Say `Via` to clients as well; a gateway need not (RFC 9110 7.6.3), and it tells them what we are.")
]
ServerField = Annotated[
    str,
    SERVER,
    Doc(
        "The `Server` field of answers: the origin's (`keep`), none (`hide`), or this text. Our own answers have one "
        "only where it is a text.",
        '"hide"',
    ),
]
AreaViaName = Annotated[
    str | None, VIA, Doc("As at the top of the file, for this area.", '"edge-1"', default="the gateway's")
]
AreaViaResponse = Annotated[
    bool | None, Doc("As at the top of the file, for this area.", "true", default="the gateway's")
]
AreaServerField = Annotated[
    str | None, SERVER, Doc("As at the top of the file, for this area.", '"hide"', default="the gateway's")
]
