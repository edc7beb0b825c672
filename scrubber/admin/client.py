"""The client side of the admin API, for commands and the demo.

Owns: how a running gateway is reached and how its problems become errors with hints.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec

from scrubber.admin import token as token_file
from scrubber.errors import FilesRefused, OperatorError, Problem, ScrubberError

TIMEOUT_S = 70.0  # longer than any request lasts there


class AdminClient:
    """Talks to one gateway. Use as `async with AdminClient(socket, token_path) as client`."""

    def __init__(self, socket_path: str, token_path: str) -> None:
        self._socket_path = socket_path
        self._token_path = token_path
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        token = token_file.read(self._token_path)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(self._socket_path),
            headers={"Authorization": f"Bearer {token}"},
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def request(
        self, method: str, path: str, body: object = None, params: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The JSON of an answer. OperatorError: no gateway answers, or it refuses; FilesRefused: with all problems."""
        if self._session is None:
            raise RuntimeError("use this inside `async with`")
        data = msgspec.json.encode(body) if body is not None else None
        try:
            async with self._session.request(method, f"http://scrubber{path}", data=data, params=params) as response:
                text = await response.read()
                answer = msgspec.json.decode(text, type=dict[str, Any])
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unreachable(error) from None
        except msgspec.DecodeError:
            hint = "is it another program's socket? see admin.socket in the gateway file"
            raise OperatorError(f"what answers at {self._socket_path} is no gateway", hint=hint) from None
        if response.status >= 400:
            raise _refusal(answer)
        return answer

    def _unreachable(self, error: Exception) -> OperatorError:
        if isinstance(error, TimeoutError):
            return OperatorError(f"the gateway at {self._socket_path} does not answer", hint="see its log (stderr)")
        cause = getattr(error, "os_error", error)
        if isinstance(cause, PermissionError):
            return OperatorError(f"no permission for {self._socket_path}", hint="run this as the gateway's user")
        hint = "start it with: scrubber run GATEWAY.toml; or name it with --gateway FILE or --socket PATH"
        return OperatorError(f"no gateway answers at {self._socket_path}", hint=hint)


def _refusal(answer: Mapping[str, Any]) -> ScrubberError:
    if answer.get("problems"):
        return FilesRefused([msgspec.convert(each, Problem) for each in answer["problems"]])
    return OperatorError(str(answer.get("detail", "refused")), hint=str(answer.get("hint", "")))


def call(
    socket_path: str,
    token_path: str,
    method: str,
    path: str,
    *,
    body: object = None,
    params: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """One request, from code that has no loop."""

    async def once() -> dict[str, Any]:
        async with AdminClient(socket_path, token_path) as client:
            return await client.request(method, path, body, params)

    return asyncio.run(once())
