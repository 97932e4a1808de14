"""Which replica gets a request: the one that holds its prefix. Rendezvous hashing of (prefix, replica)
needs no memory and no messages, and when a replica comes or goes, only its own prefixes move.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica

PREFIX_CHARACTERS = 512


def prefix_of(body: bytes) -> str:
    """What requests have to share to be worth the same replica: the system instruction and the
    beginning of the first message, or the beginning of the prompt."""
    try:
        request = json.loads(body)
    except ValueError:
        return ""
    if not isinstance(request, dict):
        return ""
    shared: Any = request.get("prompt")
    messages = request.get("messages")
    if isinstance(messages, list):
        first = messages[:2] if messages and isinstance(messages[0], dict) and messages[0].get("role") == "system" else messages[:1]
        shared = [request.get("tools"), first]
    return json.dumps(shared, ensure_ascii=False)[:PREFIX_CHARACTERS]


def ranked(prefix: str, replicas: list[str]) -> list[int]:
    """Indices of replicas, the prefix's own first."""

    def weight(i: int) -> bytes:
        return hashlib.blake2b(f"{replicas[i]}\0{prefix}".encode("utf-8", "replace"), digest_size=8).digest()

    return sorted(range(len(replicas)), key=weight)


class PrefixRouter(FIFOMixin, RequestRouter):
    """Ranks replicas by the prefix in the request's first argument; Ray takes the first with room."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        args = pending_request.args if pending_request is not None else []
        prefix = args[0] if args and isinstance(args[0], str) else ""
        names = [replica.replica_id.unique_id for replica in candidate_replicas]
        return [[candidate_replicas[i]] for i in ranked(prefix, names)]
