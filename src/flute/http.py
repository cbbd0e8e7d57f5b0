"""What the two HTTP faces (a hub's door, the coordinator's API) and their clients share."""

from __future__ import annotations

from typing import Any, TypeVar

import httpx
import msgspec
from fastapi import Request
from fastapi.responses import Response
from msgspec import Struct

from flute.errors import Answered, Malformed, TooLarge

T = TypeVar("T", bound=Struct)


def json_answer(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


async def read_stream(request: Request, limit: int) -> bytes:
    """A call's body. Raises: TooLarge: more than `limit` bytes; what came until then is dropped."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise TooLarge(f"This call may have a body of {limit} bytes.")
    return bytes(body)


def read_json(raw: bytes, kind: type[T]) -> T:
    """Raises: Malformed: not the closed struct that this call takes."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise Malformed(f"The call's body is not as expected: {error}.") from error


def read_answer(answer: httpx.Response) -> Any:
    """The JSON of an answer. Raises: Answered: the other side said no."""
    try:
        body = answer.json()
    except ValueError as error:
        raise Answered("bad-answer", f"The service answered {answer.status_code} and nothing readable.") from error
    if answer.status_code >= 400:
        detail = body if isinstance(body, dict) else {}
        raise Answered(str(detail.get("code", "refused")), str(detail.get("text", f"status {answer.status_code}")))
    return body
