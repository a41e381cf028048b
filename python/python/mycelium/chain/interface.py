"""Connections to a chain."""

import itertools
import json
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NoReturn

from mycelium import constants
from mycelium._native import Connection
from mycelium._pod import in_pod

_NODES = "mycelium.chain.fetch_nodes.get_nodes_for_netuid reads the neurons of a subnet"
_RAW = "rpc_request makes any JSON-RPC call"
# What users of Fiber call on its substrate object and this class lacks, with what serves instead.
_MISSING = {
    "query": f"{_NODES}, {_RAW}",
    "query_map": f"{_NODES}, {_RAW}",
    "query_multi": f"{_NODES}, {_RAW}",
    "runtime_call": f"{_NODES}, {_RAW}",
    "get_constant": _RAW,
    "get_events": _RAW,
    "create_storage_key": _RAW,
    "compose_call": "sign with a library of your own and submit with rpc_request",
    "create_signed_extrinsic": "sign with a library of your own and submit with rpc_request",
    "submit_extrinsic": "rpc_request('author_submitExtrinsic', [hex]) submits what is signed",
}


class SubstrateInterface:
    """A connection to one endpoint of a chain.

    Threads may share it, and a forked process may go on using it. Every call ends within a deadline; a connection that
    was lost is made again by the next call, also after `close`.
    """

    ss58_format = constants.SS58_FORMAT

    def __init__(self, url: str, *, connect: bool = True) -> None:
        """`url` begins with `ws://` or `wss://`; with `connect=False` the first call connects.

        Raises `ValueError` for what is no such address and `mycelium.errors.ChainConnectionError` when nothing answers.
        """
        self._connection = Connection(url)
        self._request_ids = itertools.count(1)
        if connect:
            self._connection.connect()

    @property
    def url(self) -> str:
        """The endpoint's address."""
        return self._connection.url

    def get_block_number(self, block_hash: str | None = None) -> int:
        """Number of a block; of the best block where none is named."""
        if block_hash is None:
            return self._connection.head(finalized=False)[0]
        return self._connection.block_number(block_hash)

    def get_block_hash(self, block_id: int | None = None) -> str:
        """Hash of a block; of the best block where none is named."""
        if block_id is None:
            return self.get_chain_head()
        return self._connection.block_hash(block_id)

    def get_chain_head(self) -> str:
        """Hash of the best block."""
        return self._connection.head(finalized=False)[1]

    def get_chain_finalised_head(self) -> str:
        """Hash of the last finalised block."""
        return self._connection.head(finalized=True)[1]

    def rpc_request(self, method: str, params: Sequence[Any] | None = None) -> dict[str, Any]:
        """Any JSON-RPC call; the answer's `result` holds what the node gave."""
        result = json.loads(self._connection.rpc(method, json.dumps(list(params or ()))))
        return {"jsonrpc": "2.0", "result": result, "id": next(self._request_ids)}

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def __enter__(self) -> "SubstrateInterface":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SubstrateInterface({self.url!r})"

    def __getattr__(self, name: str) -> NoReturn:
        if name in _MISSING:
            raise NotImplementedError(f"`{name}` does not exist yet: {_MISSING[name]}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def get_substrate(
    subtensor_network: str | None = constants.FINNEY_NETWORK,
    subtensor_address: str | None = None,
) -> SubstrateInterface:
    """Connect to a network by name (`finney`, `test`) or by address; the address wins.

    In a pod it connects with the first call that needs the chain: the sidecar answers the others.
    """
    return SubstrateInterface(_get_chain_endpoint(subtensor_network, subtensor_address), connect=not in_pod())


def _get_chain_endpoint(subtensor_network: str | None, subtensor_address: str | None) -> str:
    if subtensor_network is None and subtensor_address is None:
        raise ValueError("subtensor_network and subtensor_address cannot both be None")
    if subtensor_address is not None:
        return subtensor_address
    endpoint = constants.SUBTENSOR_NETWORK_TO_SUBTENSOR_ADDRESS.get(subtensor_network or "")
    if endpoint is None:
        raise ValueError(f"Unrecognized chain network: {subtensor_network}")
    return endpoint
