"""PyPI substrate-interface and async-substrate-interface: the same API by two makers, on which Python miners are built.

Word: `py` or `asi`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass, field
from typing import Any

from operations import FailedError, equal, facts, impossible, operation, rao, run_all, that, until, url

(LIBRARY,) = sys.argv[1:]
# Whether the chain shows NetUid as `u16` or as a type of its own (`newtype`).
NETUID = os.environ["CONFORMANCE_NETUID_TYPE"]
if LIBRARY == "py":
    from substrateinterface import Keypair, SubstrateInterface
else:
    from async_substrate_interface import AsyncSubstrateInterface
    from async_substrate_interface.sync_substrate import SubstrateInterface
    from bittensor_wallet import Keypair

MODULE = "SubtensorModule"
# 1.1.1 decodes answers of runtime APIs by a table of names, in which NetUid is a plain u16.
OLD_ASI = LIBRARY == "asi" and not hasattr(SubstrateInterface, "runtime_calls")


@dataclass
class State:
    """What the operations share."""

    facts: dict[str, Any] = field(default_factory=facts)
    chain: Any = None

    def subnet(self, netuid: int) -> dict[str, Any]:
        """A subnet of the genesis file."""
        return next(subnet for subnet in self.facts["subnets"] if subnet["netuid"] == netuid)

    def query(self, item: str, *params: object, module: str = MODULE) -> Any:
        """A value of storage."""
        got = self.chain.query(module, item, list(params))
        return getattr(got, "value", got)

    def free(self, uri: str) -> int:
        """Free balance of an account."""
        return int(self.query("Account", key(uri), module="System")["data"]["free"])


def pair(uri: str) -> Any:
    """The pair of a key URI."""
    return Keypair.create_from_uri(uri)


def key(uri: str) -> str:
    """Address of a key URI."""
    return str(pair(uri).ss58_address)


def plain(value: Any) -> Any:
    """A decoded value without the library's wrapping."""
    return getattr(value, "value", value)


def address(value: Any) -> str:
    """An account as an address: old versions decode it to its bytes, in one or two tuples."""
    value = plain(value)
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return (
        value
        if isinstance(value, str)
        else str(Keypair(public_key="0x" + bytes(value).hex(), ss58_format=42).ss58_address)
    )


def send(s: State, module: str, function: str, params: dict[str, Any], signer: str, **words: Any) -> Any:
    """Composes, signs and submits a call; its receipt."""
    call = s.chain.compose_call(call_module=module, call_function=function, call_params=params)
    extrinsic = s.chain.create_signed_extrinsic(call=call, keypair=pair(signer), era={"period": 64}, **words)
    return s.chain.submit_extrinsic(extrinsic, wait_for_inclusion=True)


def done(receipt: Any) -> Any:
    """Fails unless the chain says that the extrinsic succeeded."""
    that(receipt.is_success, f"the receipt says: {receipt.error_message}")
    return receipt


def names(receipt: Any) -> list[str]:
    """Names of the events of an extrinsic."""
    events = [plain(event) for event in receipt.triggered_events]
    return [event.get("event_id") or event["event"]["event_id"] for event in events]


@operation("connect")
def _(s: State) -> None:
    s.chain = SubstrateInterface(url=url(), ss58_format=42)
    equal("chain", s.chain.chain, "Bittensor")
    equal("token", (s.chain.token_symbol, s.chain.token_decimals), ("TAO", 9))
    that(s.chain.version, "no version")
    that(s.chain.supports_rpc_method("account_nextIndex"), "account_nextIndex is not listed")


@operation("balance")
def _(s: State) -> None:
    equal("//Ferdie", s.free("//Ferdie"), 10**15)
    for account in s.facts["accounts"]:
        equal(account["account"], s.free(account["account"]), rao(account["balance"]))
    equal("nonce of nobody", s.chain.get_account_nonce(key("//Nobody")) or 0, 0)


@operation("hyperparameters")
def _(s: State) -> None:
    told = s.subnet(1)["hyperparameters"]
    for item, name in (
        ("Tempo", "tempo"),
        ("ImmunityPeriod", "immunity_period"),
        ("MaxAllowedUids", "max_uids"),
        ("MaxAllowedValidators", "max_validators"),
        ("Kappa", "kappa"),
        ("WeightsVersionKey", "weights_version"),
    ):
        equal(item, s.query(item, 1), told[name])
    equal("commit reveal", [s.query("CommitRevealWeightsEnabled", netuid) for netuid in (1, 2)], [False, True])


@operation("maps and constants")
def _(s: State) -> None:
    neurons = s.subnet(1)["neurons"]
    uids = {address(hotkey): int(plain(uid)) for hotkey, uid in s.chain.query_map(MODULE, "Uids", params=[1])}
    equal("Uids", uids, {key(neuron["hotkey"]): uid for uid, neuron in enumerate(neurons)})
    # Pages of one key: the library asks for each with the last key of the page before.
    paged = s.chain.query_map(MODULE, "Keys", params=[1], page_size=1)
    equal("Keys", {int(plain(uid)): address(hotkey) for uid, hotkey in paged}, {u: h for h, u in uids.items()})
    equal("weights", [tuple(pair) for pair in s.query("Weights", 1, 0)], [(2, 40000), (3, 20000)])
    axon = s.query("Axons", 1, key("//Bob//hot"))
    equal("axon", (axon["ip"], axon["port"], axon["version"], axon["ip_type"]), (0xCB007107, 8091, 7, 4))
    constant = s.chain.get_constant("System", "SS58Prefix")
    equal("SS58 prefix", plain(constant), 42)


@operation("several values at once")
def _(s: State) -> None:
    keys = [s.chain.create_storage_key(MODULE, "Tempo", [netuid]) for netuid in (1, 2)]
    got = [int(plain(value)) for _key, value in s.chain.query_multi(keys)]
    equal("tempos", got, [subnet["hyperparameters"]["tempo"] for subnet in s.facts["subnets"]])


@operation("blocks and events")
def _(s: State) -> None:
    head = s.chain.get_block()
    number = int(head["header"]["number"])
    until("the next block", lambda: s.chain.get_block_number(None) > number)
    block_hash = s.chain.get_block_hash(number)
    equal("block by number", s.chain.get_block(block_number=number)["header"]["hash"], block_hash)
    equal("number by hash", s.chain.get_block_number(block_hash), number)
    events = s.chain.get_events(block_hash)
    that(len(events) >= 1, "a block without events")
    final = s.chain.get_block_number(s.chain.get_chain_finalised_head())
    that(final <= s.chain.get_block_number(None), "finality is ahead")


@operation("subscription to heads")
def _(s: State) -> None:
    seen: list[int] = []

    def handler(header: Any, _count: int = 0, _id: object = None) -> object:
        header = header.get("header", header)
        seen.append(int(header["number"]))
        return "enough" if len(seen) == 3 else None

    s.chain.subscribe_block_headers(handler)
    equal("heads", seen, list(range(seen[0], seen[0] + 3)))


if LIBRARY == "py":

    @operation("subscription to storage")
    def _(s: State) -> None:
        seen: list[int] = []

        def handler(value: Any, _count: int, _id: object) -> object:
            seen.append(int(value.value))
            return "enough" if len(seen) == 2 else None

        s.chain.query("System", "Number", [], subscription_handler=handler)
        that(seen[1] > seen[0], f"the block number went from {seen[0]} to {seen[1]}")


@operation("transfer")
def _(s: State) -> None:
    before = s.free("//Ferdie")
    receipt = done(
        send(s, "Balances", "transfer_keep_alive", {"dest": key("//Xerxes"), "value": 1_234_567_890}, "//Ferdie")
    )
    equal("received", s.free("//Xerxes"), 1_234_567_890)
    equal("sent", before - s.free("//Ferdie"), 1_234_567_890 + receipt.total_fee_amount)
    that("Transfer" in names(receipt), f"no Transfer among {names(receipt)}")
    equal("nonce", s.chain.get_account_nonce(key("//Ferdie")), 1)
    found = s.chain.get_block(block_hash=receipt.block_hash)["extrinsics"]
    that(len(found) >= 2, "the block has only its inherent")


@operation("serve axon")
def _(s: State) -> None:
    told = {"ip": 0xC6336409, "port": 8123, "ip_type": 4, "version": 1, "protocol": 4}
    words = {"netuid": 1, "placeholder1": 0, "placeholder2": 0, **told}
    receipt = done(send(s, MODULE, "serve_axon", words, "//Charlie//hot"))
    that("AxonServed" in names(receipt), f"no AxonServed among {names(receipt)}")
    got = s.query("Axons", 1, key("//Charlie//hot"))
    equal("axon", {name: got[name] for name in told}, told)


@operation("set weights")
def _(s: State) -> None:
    words = {"netuid": 1, "dests": [2, 3], "weights": [1, 3], "version_key": 0}
    done(send(s, MODULE, "set_weights", words, "//Bob//hot"))
    equal("weights", [tuple(pair) for pair in s.query("Weights", 1, 1)], [(2, 21845), (3, 65535)])


@operation("set weights, commit-reveal by time lock")
def _(s: State) -> None:
    sealed = "0x" + "ab" * 300
    words = {"netuid": 2, "commit": sealed, "reveal_round": 2**40, "commit_reveal_version": 4}
    receipt = done(send(s, MODULE, "commit_timelocked_weights", words, "//Alice//hot"))
    that("TimelockedWeightsCommitted" in names(receipt), f"no event of it among {names(receipt)}")
    rows = [plain(value) for _epoch, value in s.chain.query_map(MODULE, "TimelockedWeightCommits", params=[2])]
    that(str(2**40) in str(rows), f"no such round among {rows}")


@operation("register")
def _(s: State) -> None:
    price = s.query("Burn", 1)
    before = s.free("//Ferdie")
    receipt = done(send(s, MODULE, "burned_register", {"netuid": 1, "hotkey": key("//Ferdie//hot")}, "//Ferdie"))
    equal("uid", s.query("Uids", 1, key("//Ferdie//hot")), 4)
    paid = before - s.free("//Ferdie") - receipt.total_fee_amount
    that(0.8 * price <= paid <= price, f"paid {paid} for a price of {price}")


@operation("stake")
def _(s: State) -> None:
    words = {"hotkey": key("//Charlie//hot"), "netuid": 1, "amount_staked": rao("10")}
    receipt = done(send(s, MODULE, "add_stake", words, "//Charlie"))
    that("StakeAdded" in names(receipt), f"no StakeAdded among {names(receipt)}")
    equal("stake", s.query("TotalHotkeyAlpha", key("//Charlie//hot"), 1), rao("10"))
    words = {"hotkey": key("//Charlie//hot"), "netuid": 1, "amount_unstaked": rao("4")}
    done(send(s, MODULE, "remove_stake", words, "//Charlie"))
    equal("stake left", s.query("TotalHotkeyAlpha", key("//Charlie//hot"), 1), rao("6"))


@operation("commitment")
def _(s: State) -> None:
    data = b"https://models.example/7"
    info = {"fields": [[{f"Raw{len(data)}": "0x" + data.hex()}]]}
    done(send(s, "Commitments", "set_commitment", {"netuid": 1, "info": info}, "//Bob//hot"))
    got = str(s.query("CommitmentOf", 1, key("//Bob//hot"), module="Commitments"))
    that(any(form in got for form in (data.decode(), data.hex(), str(tuple(data)))), f"the commitment is {got}")


@operation("proxy")
def _(s: State) -> None:
    words = {"delegate": key("//Ferdie"), "proxy_type": "Any", "delay": 0}
    done(send(s, "Proxy", "add_proxy", words, "//Eve"))
    (proxies, _deposit) = s.query("Proxies", key("//Eve"), module="Proxy")
    proxy = proxies[0] if isinstance(proxies[0], dict) else proxies[0][0]
    equal("proxy", address(proxy["delegate"]), key("//Ferdie"))
    before = s.free("//Eve")
    inner = s.chain.compose_call("Balances", "transfer_keep_alive", {"dest": key("//Uma"), "value": rao("1")})
    words = {"real": key("//Eve"), "force_proxy_type": None, "call": inner}
    done(send(s, "Proxy", "proxy", words, "//Ferdie"))
    equal("paid by the real account", (before - s.free("//Eve"), s.free("//Uma")), (rao("1"), rao("1")))


@operation("batch")
def _(s: State) -> None:
    inner = [
        s.chain.compose_call("Balances", "transfer_keep_alive", {"dest": key(name), "value": rao("1")})
        for name in ("//Vic", "//Wil")
    ]
    done(send(s, "Utility", "batch_all", {"calls": inner}, "//Ferdie"))
    equal("both", [s.free("//Vic"), s.free("//Wil")], [rao("1"), rao("1")])


@operation("sudo")
def _(s: State) -> None:
    words = {"netuid": 1, "weights_set_rate_limit": 500}
    inner = s.chain.compose_call("AdminUtils", "sudo_set_weights_set_rate_limit", words)
    done(send(s, "Sudo", "sudo", {"call": inner}, "//Alice"))
    equal("rate limit", s.query("WeightsSetRateLimit", 1), 500)


@operation("errors by name")
def _(s: State) -> None:
    def refused(part: str, function: str, params: dict[str, Any], signer: str, **words: Any) -> None:
        try:
            receipt = send(s, MODULE, function, params, signer, **words)
        except FailedError:
            raise
        except Exception as error:  # noqa: BLE001 - each library has a class of its own
            said = str(error)
        else:
            said = str(receipt.error_message)
        that(part in said, f"the reason names no `{part}`: {said}")

    weights = {"netuid": 1, "dests": [2], "weights": [1], "version_key": 0}
    refused("Custom error: 6", "set_weights", weights, "//Bob//hot")
    stake = {"hotkey": key("//Stranger"), "netuid": 1, "amount_staked": rao("1")}
    refused("HotKeyAccountNotExists", "add_stake", stake, "//Bob")
    refused("NotSubnetOwner", "start_call", {"netuid": 1}, "//Bob")
    refused("outdated", "add_stake", stake, "//Ferdie", nonce=0)


def runtime_call(s: State) -> None:
    """A runtime API, decoded."""
    got = s.chain.runtime_call("NeuronInfoRuntimeApi", "get_neurons_lite", [1])
    neurons = plain(got)
    want = [key(neuron["hotkey"]) for neuron in s.subnet(1)["neurons"]]
    equal("hotkeys", [address(neuron["hotkey"]) for neuron in neurons][: len(want)], want)
    equal("axon", neurons[1]["axon_info"]["port"], 8091)


if LIBRARY == "py":
    impossible(
        "runtime call",
        why="the library reads metadata 14 only, which names no runtime APIs; it fails on the real network as well",
        error="Runtime API .* not found|not found in registry|type registry",
    )(runtime_call)
elif OLD_ASI and NETUID == "newtype":
    impossible(
        "runtime call",
        why="this version decodes by the names of types, and knows no NetUid",
        error="NetUid|Invalid type|bt_decode|decode",
    )(runtime_call)
else:
    operation("runtime call")(runtime_call)


def payment(s: State) -> None:
    """The fee of a transfer before it is sent."""
    call = s.chain.compose_call("Balances", "transfer_keep_alive", {"dest": key("//Xerxes"), "value": 1})
    info = s.chain.get_payment_info(call=call, keypair=pair("//Ferdie"))
    that(int(info.get("partial_fee") or info.get("partialFee")) > 0, f"no fee: {info}")


if LIBRARY == "py":
    impossible(
        "fee of an extrinsic",
        why="the library expects a fee of 128 bits, the chain has 64; it fails on the real network as well",
        error="(?i)remaining|type|bytes|decode",
    )(payment)
else:
    operation("fee of an extrinsic")(payment)


if LIBRARY == "asi":

    @operation("asynchronous client")
    def _(s: State) -> None:
        async def look() -> tuple[int, list[int], int]:
            async with AsyncSubstrateInterface(url=url(), ss58_format=42) as chain:
                tempo = plain(await chain.query(MODULE, "Tempo", [1]))
                tempos = [
                    plain(value) for value in await asyncio.gather(*(chain.query(MODULE, "Tempo", [n]) for n in (1, 2)))
                ]
                block = await chain.get_block_number(None)
            return tempo, tempos, block

        tempo, tempos, block = asyncio.run(look())
        equal("tempo", tempo, s.subnet(1)["hyperparameters"]["tempo"])
        equal("at once", tempos, [subnet["hyperparameters"]["tempo"] for subnet in s.facts["subnets"]])
        that(block > 0, "no block")


if __name__ == "__main__":
    run_all(State())
