"""The sidecar of this pod: what it knows of the subnet, of this node and of its group, through its unix socket.

Amounts are in TAO or alpha, shares go from 0 to 1. Answers may have more fields than the classes here: a sidecar newer
than this package stays readable.
"""

import os
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from mycelium import _pod
from mycelium._native import SidecarClient
from mycelium.errors import SidecarError, SidecarUnavailableError

_Body = TypeVar("_Body", bound="_Answer")


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Axon(_Answer):
    """Where a neuron says on chain that it can be reached."""

    ip: str
    port: int
    # `tcp`, `udp`, or the chain's number for any other.
    protocol: str | int
    # Version of the neuron's software, as it chose to number it.
    version: int
    # Block at which it was served.
    block: int


class Neuron(_Answer):
    """One registered neuron at the metagraph's block."""

    uid: int
    hotkey: str
    coldkey: str
    # Whether its last weights are recent enough to count.
    active: bool
    # Whether its weights count: among the heaviest at the last epoch.
    validator_permit: bool
    # Alpha plus weighted root TAO, as the chain ranks by.
    total_stake: float
    alpha_stake: float
    # Root TAO, unweighted.
    tao_stake: float
    # Share of the miners' emission.
    incentive: float
    # Stake-weighted median of the weights set on it.
    consensus: float
    # Share of the validators' emission.
    dividends: float
    # How much of its weights the consensus kept.
    vtrust: float
    # Alpha earned in the last epoch.
    emission: float
    # Block at which it last set weights.
    last_update: int
    # Block at which it was registered.
    registered_at: int
    axon: Axon | None


class Metagraph(_Answer):
    """A subnet at one block. `neurons[i].uid == i`."""

    netuid: int
    block: int
    block_hash: str
    # Blocks between two epochs.
    tempo: int
    # Block of the last epoch.
    last_step: int
    blocks_since_last_step: int
    neurons: list[Neuron]

    def by_hotkey(self, hotkey: str) -> Neuron | None:
        """The neuron registered under a hotkey."""
        return next((neuron for neuron in self.neurons if neuron.hotkey == hotkey), None)


class ChainStatus(_Answer):
    """The sidecar's view of the chain."""

    endpoint: str | None
    # Whether the last refresh succeeded and is recent.
    synced: bool
    # Why not, if not.
    error: str | None
    genesis_hash: str | None
    spec_version: int | None
    # Block of the metagraph held.
    block: int | None
    # Seconds since it was read.
    age_s: int | None


class RegistryStatus(_Answer):
    """How many validators and miners the sidecar knows, in all and by state."""

    total: int
    states: dict[str, int]


class ElectionWeight(_Answer):
    """One member's weight in elections of the group."""

    hotkey: str
    tier: str | None
    # Larger campaigns first.
    band: int
    stake: float


class GroupStatus(_Answer):
    """The group of validators, as this member sees it."""

    cluster_id: str
    node_id: int
    # `leader`, `follower`, `candidate`, `learner` or `outside`.
    role: str
    term: int
    leader: str | None
    last_log_index: int
    applied_index: int
    voters: list[str]
    learners: list[str]
    # Heaviest first.
    weights: list[ElectionWeight]


class Status(_Answer):
    """The sidecar, its node, its chain and its group."""

    version: str
    network: str
    # `validator` or `miner`.
    kind: str
    hotkey: str
    netuid: int
    chain: ChainStatus
    # Its own neuron, when registered.
    neuron: Neuron | None
    registry: RegistryStatus
    # Absent beside a miner.
    group: GroupStatus | None


class Validator(_Answer):
    """One validator in the sidecar's registry."""

    hotkey: str
    uid: int
    # `discovered`, `verified`, `active`, `inactive` or `below_stake`.
    state: str
    reason: str
    stake: float
    validator_permit: bool
    # Block of the last change of this entry.
    block: int


class Verification(_Answer):
    """Whether a hotkey is a validator of this subnet with enough stake. True in a condition when it is."""

    hotkey: str
    verified: bool
    # `verified`, `not_registered`, `below_minimum_stake` or `no_validator_permit`.
    reason: str
    uid: int | None
    stake: float
    minimum_stake: float
    # Block at which this was so.
    block: int
    # Whether the answer was repeated from within its time to live.
    cached: bool

    def __bool__(self) -> bool:
        return self.verified


class _Validators(_Answer):
    validators: list[Validator]


class Sidecar:
    """The sidecar of this pod. Threads may share it; it holds nothing open, so a restart of the sidecar needs no care.

    Every call raises `mycelium.errors.SidecarUnavailableError` when the socket does not answer in time, and
    `mycelium.errors.SidecarError` with the sidecar's own words for everything else.
    """

    def __init__(self, socket: str | os.PathLike[str] | None = None, timeout: float = _pod.TIMEOUT) -> None:
        """Without `socket` the variable `MYCELIUM_SOCKET` names it. `timeout` is in seconds, for each call."""
        path = os.fspath(socket) if socket is not None else _pod.socket_of_pod()
        if path is None:
            raise SidecarUnavailableError(
                f"{_pod.SOCKET_VARIABLE} is not set: it names the sidecar's unix socket, and the operator sets it in "
                "every pod; elsewhere set it yourself or give `socket`"
            )
        self._client = SidecarClient(path, timeout)

    def status(self) -> Status:
        """What the sidecar says of itself, its node, its chain and its group. Answers also while the chain is down."""
        return _read(Status, self._client.status())

    def metagraph(self) -> Metagraph:
        """The subnet at the last block the sidecar read; `status().chain` says how old that is."""
        return _read(Metagraph, self._client.metagraph())

    def validators(self) -> list[Validator]:
        """The validators in the sidecar's registry, in the order of uids."""
        return _read(_Validators, self._client.validators()).validators

    def verify(self, hotkey: str) -> Verification:
        """Whether `hotkey` is a validator of this subnet with enough stake.

        Raises `ValueError` for what is no SS58 address.
        """
        return _read(Verification, self._client.verify(hotkey))

    def __repr__(self) -> str:
        return f"Sidecar({str(self._client.socket)!r})"


def _read(body: type[_Body], text: bytes) -> _Body:
    try:
        return body.model_validate_json(text)
    except ValueError as error:
        raise SidecarError(
            f"could not read the sidecar's {body.__name__.strip('_').lower()}: are sidecar and package of the same "
            f"version? ({error})"
        ) from error
