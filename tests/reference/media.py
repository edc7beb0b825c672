"""Whether a client is answered in JSON, slow and obvious: RFC 9110 12.5.1 by regular expressions."""

from __future__ import annotations

import re
from fractions import Fraction

CHARS = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
VALUE = rf'(?:{CHARS}|"(?:[^"\\]|\\.)*")'
SOUND = re.compile(
    rf"[ \t]*(?P<range>[!#$%&'*+\-.^_`|~0-9A-Za-z/]*)(?P<more>(?:[ \t]*;[ \t]*(?:{CHARS}={VALUE})?)*)[ \t]*", re.DOTALL
)
PARAMETER = re.compile(rf";[ \t]*(?P<name>{CHARS})=(?P<value>{VALUE})", re.DOTALL)


def weight(parameters: str) -> Fraction | None:
    """None: it is not one."""
    q = Fraction(1)
    for found in PARAMETER.finditer(parameters):
        if found["name"].lower() == "q":
            text = re.sub(r"\\(.)", r"\1", found["value"].strip('"'), flags=re.DOTALL)
            if not re.fullmatch(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?", text):
                return None
            q = Fraction(text.removesuffix("."))
    return q


def elements(field: str) -> list[tuple[str, Fraction]]:
    """Media ranges in lower case and what they weigh; those that are not sound are left out, up to the next comma."""
    out = []
    at = 0
    while 0 <= at < len(field):
        found = SOUND.match(field, at)
        assert found is not None, "it may be empty"
        end = found.end()
        if end == len(field) or field[end] == ",":
            q = weight(found["more"])
            if q is not None:
                out.append((found["range"].lower(), q))
        else:
            end = field.find(",", end)
        at = end + 1 if end >= 0 else -1
    return out


def accepts_json(fields: list[str]) -> bool:
    said = [each for field in fields for each in elements(field)]

    def heaviest(*names: str) -> Fraction | None:
        return max((q for name, q in said if name in names), default=None)

    json = heaviest("application/problem+json")
    if json is None:
        others = {name for name, _ in said if re.fullmatch(r"application/(json|.+\+json)", name)}
        json = heaviest(*others)
    html = next((q for q in map(heaviest, ("text/html", "text/*", "*/*")) if q is not None), Fraction(0))
    return json is not None and json > 0 and json >= html
