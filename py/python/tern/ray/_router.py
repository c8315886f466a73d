"""Ray Serve's way to ask which replica a request goes to."""

from __future__ import annotations

from typing import Any, Optional

from ray.serve.request_router import RequestRouter  # type: ignore[import-not-found,unused-ignore]

from tern._route import preferred, ranked


class PrefixRouter(RequestRouter):  # type: ignore[misc,unused-ignore]
    """Sends requests that begin alike to the same replica, unless it is much busier than another."""

    def initialize_state(self, **settings: Any) -> None:
        self._slack = float(settings["slack"])

    async def choose_replicas(self, candidate_replicas: list[Any], pending_request: Optional[Any] = None) -> list[list[Any]]:
        if pending_request is None or not candidate_replicas:
            return [candidate_replicas]
        # After all have been tried, wait before trying again.
        pending_request.routing_context.should_backoff = True
        order = ranked(pending_request.args[2], candidate_replicas, lambda one: str(one.replica_id.unique_id))
        return [[one] for one in preferred(order, self._load, self._slack)]

    def _load(self, replica: Any) -> float:
        return self.replica_queue_len_cache.get(replica.replica_id) or 0
