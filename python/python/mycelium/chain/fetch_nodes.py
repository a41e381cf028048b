"""The nodes of a subnet."""

from functools import lru_cache
from typing import Protocol

from mycelium._pod import shared_client, socket_of_pod
from mycelium.chain.interface import SubstrateInterface, get_substrate
from mycelium.chain.models import Node

__all__ = ["get_nodes_for_netuid", "get_substrate"]


class _HasUrl(Protocol):
    @property
    def url(self) -> str: ...


def get_nodes_for_netuid(substrate: _HasUrl, netuid: int, block: int | None = None) -> list[Node]:
    """Every node of a subnet in the order of uids, at the best block or at the one given.

    In a pod the sidecar answers from its cache when `netuid` is its own subnet and no block is given, whatever chain
    `substrate` names. All other calls go to the chain at `substrate.url`. Of a substrate object from another library
    only `url` is used; connections to such addresses are kept and shared.

    Raises `mycelium.errors.SubnetNotFoundError`, `ChainConnectionError` or another `ChainError`; in a pod
    `SidecarError`. A sidecar that fails is never replaced by the chain at `substrate.url`: that may be another chain.
    """
    _check_range("netuid", netuid, 0xFFFF)
    if block is not None:
        _check_range("block", block, 0xFFFF_FFFF)
    elif (socket := socket_of_pod()) is not None:
        fields = shared_client(socket).nodes(netuid)
        if fields is not None:
            return [Node(**field) for field in fields]
    return _get_nodes_for_uid(substrate, netuid, block)


def _get_nodes_for_uid(substrate: _HasUrl, netuid: int, block: int | None = None) -> list[Node]:
    own = substrate if isinstance(substrate, SubstrateInterface) else _shared_connection(substrate.url)
    return [Node(**field) for field in own._connection.nodes(netuid, block)]


@lru_cache(maxsize=16)
def _shared_connection(url: str) -> SubstrateInterface:
    return SubstrateInterface(url, connect=False)


def _check_range(field: str, value: int, largest: int) -> None:
    if not 0 <= value <= largest:
        raise ValueError(f"{field}: `{value}` is not a whole number from 0 to {largest}")
