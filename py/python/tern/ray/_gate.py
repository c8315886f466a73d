"""What clients of the models on Ray Serve talk to, behind the paths: reads which model is asked, and hands the answer on."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping as _Mapping
from typing import Any, Mapping, Optional

from fastapi import Request, Response  # type: ignore[import-not-found,unused-ignore]
from fastapi.responses import StreamingResponse  # type: ignore[import-not-found,unused-ignore]
from ray.exceptions import RayActorError  # type: ignore[import-not-found,unused-ignore]
from ray.serve.exceptions import BackPressureError  # type: ignore[import-not-found,unused-ignore]
from starlette.requests import ClientDisconnect  # type: ignore[import-not-found,unused-ignore]

from tern._route import beginning

#: What clients may post to: the routes that name a model and keep nothing between two requests.
ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/messages")
#: The largest body, as that of `tern serve`.
LARGEST = 16 << 20


def _refusal(status: int, message: str, kind: str = "invalid_request_error", code: Optional[str] = None) -> Response:
    error = {"message": message, "type": kind, "param": None, "code": code}
    return Response(json.dumps({"error": error}), status, media_type="application/json")


class Gate:
    """The models by their names, and how many characters of a request's beginning choose the replica."""

    def __init__(self, models: Mapping[str, Any], prefixes: Mapping[str, int]) -> None:
        self._models, self._prefixes, self._born = dict(models), dict(prefixes), int(time.time())

    def all(self) -> Any:
        """The models."""
        return {"object": "list", "data": [self._about(name) for name in self._models]}

    def about(self, name: str) -> Any:
        """One of them."""
        return self._about(name) if name in self._models else self._unknown(name)

    async def post(self, request: Request) -> Any:
        """A request to a model."""
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        if path not in ROUTES:
            return _refusal(404, f"no such path: {path[:200]}")
        try:
            body = await _body(request)
            if body is None:
                return _refusal(413, f"the body is larger than {LARGEST >> 20} MiB")
            fields = json.loads(body)
        except (ValueError, RecursionError):
            return _refusal(400, "the body is not JSON")
        except ClientDisconnect:
            return _refusal(400, "the client left")
        if not isinstance(fields, _Mapping):
            return _refusal(400, "the body is not a JSON object")
        name = fields.get("model")
        if name is None and len(self._models) == 1:
            (name,) = self._models
        if not isinstance(name, str) or name not in self._models:
            return self._unknown(name)
        key = beginning(path, fields, self._prefixes[name])
        return await self._ask(name, path, body, key, fields.get("stream") is True)

    async def _ask(self, name: str, path: str, body: bytes, key: str, stream: bool) -> Any:
        for last in (False, True):
            answer = self._models[name].options(stream=True).ask.remote(path, body, key)
            try:
                status = await answer.__anext__()
                break
            except BackPressureError:
                return _refusal(503, "too many requests wait for this model: try again later", "overloaded_error")
            except RayActorError:
                # The replica died before it said anything: another one is asked, once.
                if last:
                    return _refusal(503, "the model's process ended: try again", "server_error")
        if stream and status < 400:
            return StreamingResponse(answer, status, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        return Response(b"".join([piece async for piece in answer]), status, media_type="application/json")

    def _about(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._born, "owned_by": "tern"}

    def _unknown(self, name: Any) -> Response:
        known = ", ".join(self._models)
        told = name[:200] if isinstance(name, str) else "no name"
        return _refusal(404, f"the model `{told}` is not here; there is {known}", code="model_not_found")


async def _body(request: Request) -> Optional[bytes]:
    """The request's body, unless it is too large."""
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > LARGEST:
            return None
        pieces.append(piece)
    return b"".join(pieces)
