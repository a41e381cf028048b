"""Whether a sidecar stands beside this process, and the client that all calls of the process share."""

import os
from functools import lru_cache

from mycelium._native import SidecarClient

SOCKET_VARIABLE = "MYCELIUM_SOCKET"

# Seconds. The sidecar itself gives up asking the chain after 15.
TIMEOUT = 20.0


def socket_of_pod() -> str | None:
    """Path of the sidecar's socket, where there is a sidecar."""
    return os.environ.get(SOCKET_VARIABLE) or None


def in_pod() -> bool:
    """Whether there is a sidecar."""
    return socket_of_pod() is not None


@lru_cache(maxsize=4)
def shared_client(socket: str) -> SidecarClient:
    """One client for each socket: it keeps the last metagraph."""
    return SidecarClient(socket, TIMEOUT)
