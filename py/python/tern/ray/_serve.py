"""Models behind OpenAI's interface on Ray Serve: one deployment for each model, and one that clients talk to."""

# Annotations stay objects: FastAPI reads them where the names that they would be are not known.
import asyncio
from typing import Any, AsyncIterator, Mapping, Optional, Sequence, Union

from fastapi import FastAPI, Request  # type: ignore[import-not-found,unused-ignore]
from ray import serve  # type: ignore[import-not-found,unused-ignore]
from ray.serve.config import AutoscalingConfig, RequestRouterConfig  # type: ignore[import-not-found,unused-ignore]

from tern._model import Model
from tern.ray._config import TernServeConfig


class Replica:
    """A loaded model."""

    def __init__(self, config: TernServeConfig) -> None:
        self._model = Model(
            config.model, threads=config.threads, parallel=config.parallel, **{"name": config.id, **config.options}
        )

    async def ask(self, path: str, body: bytes, key: str) -> AsyncIterator[Union[int, bytes]]:
        """Answers a request: its status, then its body, piece by piece. `key` is for the router."""
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[Any]()

        def heard(status: int, piece: Optional[bytes]) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, (status, piece))

        task = self._model._engine.call(path, body, heard)
        told, ended = False, False
        try:
            while not ended:
                pieces = [await queue.get()]
                # What came in the meantime goes along.
                while not queue.empty():
                    pieces.append(queue.get_nowait())
                if not told:
                    told = True
                    yield pieces[0][0]
                ended = pieces[-1][1] is None
                whole = b"".join(piece for _, piece in pieces if piece is not None)
                if whole:
                    yield whole
        finally:
            task.cancel()


web = FastAPI(title="Tern", openapi_url=None)


@serve.deployment
@serve.ingress(web)
class Ingress:
    """What clients talk to. Ray copies this class without what else is in this file, so it only hands on."""

    def __init__(self, models: Mapping[str, Any], prefixes: Mapping[str, int]) -> None:
        from tern.ray._gate import Gate

        self.gate = Gate(models, prefixes)

    @web.get("/health")  # type: ignore[untyped-decorator,unused-ignore]
    async def health(self) -> Any:
        return {"status": "ok"}

    @web.get("/v1/models")  # type: ignore[untyped-decorator,unused-ignore]
    async def models(self) -> Any:
        return self.gate.all()

    @web.get("/v1/models/{name:path}")  # type: ignore[untyped-decorator,unused-ignore]
    async def model(self, name: str) -> Any:
        return self.gate.about(name)

    @web.post("/{path:path}")  # type: ignore[untyped-decorator,unused-ignore]
    async def post(self, request: Request) -> Any:
        return await self.gate.post(request)


def application(models: Sequence[TernServeConfig], ingress: Mapping[str, Any]) -> Any:
    """The application that `serve.run` takes."""
    names = [one.id for one in models]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"expected models with different names, found {', '.join(names) or 'none'}")
    deployments, prefixes = {}, {}
    for nth, one in enumerate(models):
        deployments[one.id] = _deployment(one, nth).bind(one)
        prefixes[one.id] = one.prefix
    told = {"num_replicas": 1, "max_ongoing_requests": 10_000, "max_surge_percent": 100,
            "ray_actor_options": {"num_cpus": 0}, **ingress}
    return Ingress.options(**told).bind(deployments, prefixes)  # type: ignore[attr-defined]


def _deployment(one: TernServeConfig, nth: int) -> Any:
    if isinstance(one.replicas, int):
        size: dict[str, Any] = {"num_replicas": one.replicas}
    else:
        least, most = one.replicas
        told = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": one.requests, **one.autoscaling}
        size = {"autoscaling_config": AutoscalingConfig(**told)}
    router = RequestRouterConfig(
        request_router_class="tern.ray._router.PrefixRouter",  # type: ignore[arg-type,unused-ignore]
        request_router_kwargs={"slack": one.slack},
    )
    return serve.deployment(
        Replica, name="".join(letter if letter.isalnum() else "-" for letter in one.id) + f"-{nth}",
        # Some more than are written at a time, so that the next ones are prepared when places become free.
        max_ongoing_requests=4 * one.parallel, max_queued_requests=one.queue, request_router_config=router,
        ray_actor_options={"num_cpus": one.threads}, graceful_shutdown_timeout_s=one.grace, graceful_shutdown_wait_loop_s=0.5,
        max_surge_percent=one.surge, **size,
    )
