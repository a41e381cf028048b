"""Nodes and blocks straight from a chain."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from mycelium.chain import interface
from mycelium.chain.fetch_nodes import get_nodes_for_netuid
from mycelium.chain.interface import SubstrateInterface, get_substrate
from mycelium.chain.models import Node
from mycelium.errors import ChainConnectionError, ChainError, MyceliumError, SubnetNotFoundError
from processes import ALICE, BOB, CHARLIE, CHARLIES_AXON, DAVE, EVE, FERDIE, NETUID, Devchain, free_port, until

# Order matters: users hash `json.dumps(node.model_dump())`.
FIBERS_FIELDS = [
    *["hotkey", "coldkey", "node_id", "incentive", "netuid", "alpha_stake", "tao_stake", "stake", "trust", "vtrust"],
    *["last_updated", "ip", "ip_type", "port", "protocol"],
]


@pytest.fixture(scope="module")
def substrate(chain: Devchain) -> SubstrateInterface:
    return get_substrate(subtensor_address=chain.url)


def test_nodes_have_the_fields_and_units_of_fiber(substrate: SubstrateInterface) -> None:
    # At block 0 everything is as the genesis file says.
    nodes = get_nodes_for_netuid(substrate, NETUID, block=0)
    assert [node.hotkey for node in nodes] == [ALICE, BOB, CHARLIE, DAVE, EVE]
    assert [node.node_id for node in nodes] == [0, 1, 2, 3, 4]
    assert all(list(node.model_dump(mode="json")) == FIBERS_FIELDS for node in nodes)
    alice, bob, charlie, dave, _ = nodes
    # Multiplied by 1e-9, with the artefact that Fiber's values have.
    assert (alice.alpha_stake, alice.tao_stake) == (50_000_000_000_007 * 1e-9, 12.5)
    assert alice.stake > alice.alpha_stake
    assert (bob.coldkey, bob.stake, bob.netuid, bob.trust) == (BOB, 20_000.0, NETUID, 0.0)
    assert (bob.ip, bob.ip_type, bob.port, bob.protocol) == ("0", 0, 0, 0)
    assert (charlie.ip, charlie.ip_type, charlie.port, charlie.protocol) == ("2130772483", 4, CHARLIES_AXON[1], 4)
    assert (dave.ip, dave.ip_type, dave.port) == ("338288524927261089654018896841347694593", 6, 65535)
    assert dave.protocol == 1


def test_shares_are_raw_after_an_epoch_and_old_blocks_stay_as_they_were(substrate: SubstrateInterface) -> None:
    def scored() -> Node | None:
        charlie = get_nodes_for_netuid(substrate=substrate, netuid=NETUID)[2]
        return charlie if charlie.incentive > 0 else None

    charlie = until("an epoch", scored)
    # Two thirds of the weights went to Charlie.
    assert 30_000 < charlie.incentive <= 65_535
    assert charlie.vtrust > 0
    assert get_nodes_for_netuid(substrate, NETUID, 0)[2].incentive == 0


def test_a_subnet_that_the_chain_lacks_is_named(substrate: SubstrateInterface, chain: Devchain) -> None:
    with pytest.raises(SubnetNotFoundError, match=f"{chain.url}` has no subnet with netuid 77"):
        get_nodes_for_netuid(substrate, 77)


def test_a_block_that_the_chain_lacks_is_named(substrate: SubstrateInterface) -> None:
    with pytest.raises(ChainError, match="has no block 4000000000"):
        get_nodes_for_netuid(substrate, NETUID, block=4_000_000_000)


def test_numbers_outside_their_range_are_refused(substrate: SubstrateInterface) -> None:
    with pytest.raises(ValueError, match="netuid: `65536` is not a whole number from 0 to 65535"):
        get_nodes_for_netuid(substrate, 65_536)
    with pytest.raises(ValueError, match="block: `-1`"):
        get_nodes_for_netuid(substrate, NETUID, -1)


def test_of_a_foreign_substrate_only_the_url_is_used_and_nothing_leaks(chain: Devchain) -> None:
    foreign = SimpleNamespace(url=chain.url)
    first = get_nodes_for_netuid(foreign, 2)
    open_files, threads = count("fd"), count("task")
    assert all(get_nodes_for_netuid(foreign, 2) == first for _ in range(50))
    assert [node.hotkey for node in first] == [FERDIE]
    assert (count("fd"), count("task")) == (open_files, threads)


def count(kind: str) -> int:
    return sum(1 for _ in Path("/proc/self", kind).iterdir())


def test_blocks_have_numbers_and_hashes_that_fit(substrate: SubstrateInterface, chain: Devchain) -> None:
    assert substrate.get_block_hash(0) == chain.genesis_hash
    number = substrate.get_block_number()
    assert substrate.get_block_number(substrate.get_block_hash(number)) == number
    assert substrate.get_block_number(substrate.get_block_hash()) >= number
    finalised = substrate.get_block_number(substrate.get_chain_finalised_head())
    assert finalised <= substrate.get_block_number(substrate.get_chain_head())


def test_raw_calls_reach_the_node(substrate: SubstrateInterface) -> None:
    answer = substrate.rpc_request("chain_getBlockHash", [[0, 0]])
    assert answer["result"] == [substrate.get_block_hash(0)] * 2
    assert substrate.rpc_request("system_chain")["result"]
    with pytest.raises(ChainError, match="`no_such_method` was refused"):
        substrate.rpc_request("no_such_method", [])


def test_what_does_not_exist_says_what_to_use_instead(substrate: SubstrateInterface) -> None:
    with pytest.raises(NotImplementedError, match=r"`query` does not exist yet: .*get_nodes_for_netuid"):
        substrate.query("SubtensorModule", "Uids", [])
    with pytest.raises(AttributeError, match="no attribute 'quary'"):
        substrate.quary  # noqa: B018


def test_a_closed_connection_opens_again_with_the_next_call(chain: Devchain) -> None:
    with get_substrate(None, chain.url) as substrate:
        assert substrate.url == chain.url
        before = substrate.get_block_number()
    assert substrate.get_block_number() >= before
    assert get_nodes_for_netuid(substrate, 2)
    substrate.close()
    substrate.close()


def test_a_chain_that_restarts_is_found_again(tmp_path: Path) -> None:
    with Devchain(tmp_path) as own:
        substrate = get_substrate(subtensor_address=own.url)
        hashes = [substrate.get_block_hash(0)]
        own.stop()
        with pytest.raises(ChainConnectionError, match=own.url):
            get_nodes_for_netuid(substrate, NETUID)
        own.start()
        assert len(get_nodes_for_netuid(substrate, NETUID)) == 5
        own.stop()
        own.start()
        # Nobody noticed the loss in between: the call itself has to.
        assert len(get_nodes_for_netuid(substrate, NETUID)) == 5
        hashes.append(substrate.get_block_hash(0))
        assert hashes[0] == hashes[1]


def test_threads_share_one_connection(chain: Devchain) -> None:
    substrate = get_substrate(subtensor_address=chain.url)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: get_nodes_for_netuid(substrate, 2), range(40)))
    assert all(answer == answers[0] for answer in answers)


def _hotkeys_to(queue: "multiprocessing.Queue[list[str]]", substrate: SubstrateInterface) -> None:
    queue.put([node.hotkey for node in get_nodes_for_netuid(substrate, 2)])


def test_a_forked_process_goes_on_and_leaves_the_parents_connection_alone(chain: Devchain) -> None:
    substrate = get_substrate(subtensor_address=chain.url)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_hotkeys_to, args=(queue, substrate))
    child.start()
    assert queue.get(timeout=30) == [FERDIE]
    child.join(timeout=30)
    assert child.exitcode == 0
    assert get_nodes_for_netuid(substrate, 2)[0].hotkey == FERDIE


def test_endpoints_are_checked_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="`http://host:9944` is not a WebSocket address"):
        get_substrate(subtensor_address="http://host:9944")
    with pytest.raises(ValueError, match="cannot both be None"):
        get_substrate(None)
    with pytest.raises(ValueError, match="Unrecognized chain network: nowhere"):
        get_substrate("nowhere")
    named = {name: interface._get_chain_endpoint(name, None) for name in ("finney", "test")}
    assert all(url.startswith("wss://") for url in named.values())
    assert interface._get_chain_endpoint("finney", "ws://own:1") == "ws://own:1"


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_an_endpoint_that_nobody_serves_is_named(scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:{free_port()}"
    with pytest.raises(ChainConnectionError, match=url) as raised:
        get_substrate(subtensor_address=url)
    assert isinstance(raised.value, MyceliumError)
    assert type(raised.value).__module__ == "mycelium.errors"
