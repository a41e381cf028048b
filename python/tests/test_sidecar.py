"""The sidecar through its unix socket."""

import signal
import socket as sockets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mycelium.chain.fetch_nodes import get_nodes_for_netuid
from mycelium.chain.interface import get_substrate
from mycelium.chain.models import Node
from mycelium.errors import ChainConnectionError, SidecarError, SidecarUnavailableError
from mycelium.sidecar import Sidecar
from processes import (
    ALICE,
    BOB,
    CHARLIES_AXON,
    DAVES_AXON,
    EVE,
    FERDIE,
    MINIMUM_STAKE,
    NETUID,
    Devchain,
    SidecarProcess,
    free_port,
    until,
)


@pytest.fixture
def sidecar(in_pod: Path) -> Sidecar:  # noqa: ARG001
    """As a program in the pod makes it."""
    return Sidecar()


@pytest.fixture
def silent_socket(tmp_path: Path) -> Iterator[Path]:
    """A socket that takes connections and never says anything."""
    path = tmp_path / "silent.sock"
    with sockets.socket(sockets.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield path


def test_status_tells_of_the_node_and_its_chain(sidecar: Sidecar, chain: Devchain) -> None:
    status = sidecar.status()
    assert (status.kind, status.hotkey, status.netuid, status.network) == ("validator", ALICE, NETUID, "test")
    assert (status.chain.endpoint, status.chain.genesis_hash) == (chain.url, chain.genesis_hash)
    assert status.chain.synced
    assert status.chain.error is None
    assert status.neuron is not None
    assert status.neuron.hotkey == ALICE
    assert status.registry.total == 5
    assert sum(status.registry.states.values()) == status.registry.total


def test_the_metagraph_has_every_neuron(sidecar: Sidecar) -> None:
    metagraph = sidecar.metagraph()
    assert [neuron.uid for neuron in metagraph.neurons] == [0, 1, 2, 3, 4]
    assert (metagraph.netuid, metagraph.tempo) == (NETUID, 10)
    bob = metagraph.by_hotkey(BOB)
    assert bob is not None
    assert (bob.uid, bob.axon) == (1, None)
    assert bob.alpha_stake >= 20_000.0
    axons = [neuron.axon for neuron in metagraph.neurons if neuron.axon]
    assert [(axon.ip, axon.port, axon.protocol) for axon in axons] == [
        (*CHARLIES_AXON, 4),
        (*DAVES_AXON, "udp"),
    ]
    assert metagraph.by_hotkey(FERDIE) is None


def test_the_metagraph_moves_on_with_the_chain(sidecar: Sidecar) -> None:
    first = sidecar.metagraph().block
    until("a later metagraph", lambda: sidecar.metagraph().block > first or None)


def test_verify_is_true_for_a_validator_with_enough_stake_only(sidecar: Sidecar) -> None:
    alice = until("a permit", lambda: sidecar.verify(ALICE) or None)
    assert alice
    assert (alice.reason, alice.uid, alice.minimum_stake) == ("verified", 0, float(MINIMUM_STAKE))
    stranger = sidecar.verify(FERDIE)
    assert not stranger
    assert (stranger.reason, stranger.uid, stranger.stake) == ("not_registered", None, 0.0)
    poor = sidecar.verify(EVE)
    assert not poor
    assert poor.stake < poor.minimum_stake


def test_what_is_no_hotkey_is_refused_with_what_is_wrong_with_it(sidecar: Sidecar) -> None:
    with pytest.raises(ValueError, match=r"hotkey: `5Grx.*` has a wrong checksum"):
        sidecar.verify(ALICE.replace("5Grw", "5Grx"))
    with pytest.raises(ValueError, match=r"hotkey: `\.\./status` "):
        sidecar.verify("../status")


def test_validators_are_listed_with_their_state(sidecar: Sidecar) -> None:
    def listed() -> list[str] | None:
        hotkeys = [validator.hotkey for validator in sidecar.validators()]
        return hotkeys if {ALICE, BOB} <= set(hotkeys) else None

    until("both validators", listed)
    states = {validator.hotkey: validator.state for validator in sidecar.validators()}
    assert states[ALICE] in {"discovered", "verified", "active"}


def test_nodes_are_the_same_from_the_sidecar_and_from_the_chain(in_pod: Path, chain: Devchain) -> None:
    # An endpoint that nobody serves: what answers is the sidecar.
    nowhere = get_substrate(subtensor_address=f"ws://127.0.0.1:{free_port()}")

    def of_one_block() -> tuple[int, list[Node]] | None:
        sidecar = Sidecar(in_pod)
        block = sidecar.metagraph().block
        nodes = get_nodes_for_netuid(nowhere, NETUID)
        scored = any(node.incentive for node in nodes)
        return (block, nodes) if scored and sidecar.metagraph().block == block else None

    block, nodes = until("nodes of one block with scores", of_one_block)
    # With a block the chain is asked, in a pod as well.
    assert get_nodes_for_netuid(get_substrate(subtensor_address=chain.url), NETUID, block) == nodes


@pytest.mark.usefixtures("in_pod")
def test_in_a_pod_other_subnets_come_from_the_chain(chain: Devchain) -> None:
    assert get_nodes_for_netuid(get_substrate(subtensor_address=chain.url), 2)[0].hotkey == FERDIE
    nowhere = get_substrate(subtensor_address=f"ws://127.0.0.1:{free_port()}")
    with pytest.raises(ChainConnectionError):
        get_nodes_for_netuid(nowhere, 2)


def test_a_sidecar_that_fails_is_not_replaced_by_another_chain(
    tmp_path: Path, chain: Devchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYCELIUM_SOCKET", str(tmp_path / "gone.sock"))
    with pytest.raises(SidecarUnavailableError, match=r"gone\.sock"):
        get_nodes_for_netuid(get_substrate(subtensor_address=chain.url), NETUID)


def test_problems_become_errors_with_the_sidecars_words(sidecar_for: Callable[[str], SidecarProcess]) -> None:
    url = f"ws://127.0.0.1:{free_port()}"
    sidecar = Sidecar(sidecar_for(url).socket)
    status = until("a failed attempt", lambda: _with_error(sidecar, "EndpointDown"))
    assert url in status
    for call in (sidecar.metagraph, sidecar.validators, lambda: sidecar.verify(ALICE)):
        with pytest.raises(SidecarError, match=url) as raised:
            call()
        assert (raised.value.status, raised.value.kind) == (503, "urn:mycelium:chain-unavailable")
        assert not isinstance(raised.value, SidecarUnavailableError)


def _with_error(sidecar: Sidecar, reason: str) -> str | None:
    chain = sidecar.status().chain
    return chain.error if chain.error and chain.error.startswith(reason) else None


def test_a_sidecar_that_restarts_answers_the_same_object_again(
    sidecar_for: Callable[[str], SidecarProcess], chain: Devchain
) -> None:
    process = sidecar_for(chain.url)
    sidecar = Sidecar(process.socket)
    process.wait_for_chain()
    before = sidecar.metagraph()
    process.stop()
    with pytest.raises(SidecarUnavailableError, match=str(process.socket)):
        sidecar.metagraph()
    process.start()
    process.wait_for_chain()
    assert sidecar.metagraph().block >= before.block


def test_without_a_socket_the_variable_is_named() -> None:
    with pytest.raises(SidecarUnavailableError, match="MYCELIUM_SOCKET is not set"):
        Sidecar()


def test_a_socket_that_nobody_serves_is_named(tmp_path: Path) -> None:
    with pytest.raises(SidecarUnavailableError, match=r"nobody\.sock.*MYCELIUM_SOCKET") as raised:
        Sidecar(tmp_path / "nobody.sock").status()
    assert raised.value.status is None


def test_a_silent_sidecar_is_given_up_after_the_timeout(silent_socket: Path) -> None:
    with pytest.raises(SidecarUnavailableError, match=r"no answer to /v1/status within 0\.2 s"):
        Sidecar(silent_socket, timeout=0.2).status()


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_a_timeout_is_a_number_of_seconds(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout: `"):
        Sidecar("any.sock", timeout=timeout)


def test_other_threads_run_while_one_waits(silent_socket: Path) -> None:
    waiting = threading.Thread(target=_ignore_errors, args=(Sidecar(silent_socket, timeout=1).status,))
    waiting.start()
    rounds = 0
    while waiting.is_alive():
        rounds += 1
        time.sleep(0.01)
    # With the interpreter held there would be one round, at the end.
    assert rounds > 10


def test_ctrl_c_ends_a_wait(silent_socket: Path) -> None:
    # A shell starts its background jobs with the signal ignored, and Python leaves it so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(0.2, signal.raise_signal, args=(signal.SIGINT,)).start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            Sidecar(silent_socket, timeout=30).status()
        assert time.monotonic() - started < 10
    finally:
        signal.signal(signal.SIGINT, before)


def _ignore_errors(call: Callable[[], object]) -> None:
    try:
        call()
    except SidecarError:
        return
