"""PyPI bittensor 10.5: what validators, miners and owners do with the SDK, through its public class `Subtensor`.

The helper `done` looks at the SDK's own verdict; every operation then reads back from the chain what it has changed.
"""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass, field
from typing import Any

import bittensor as bt
from bittensor.core.chain_data import SubnetIdentity
from bittensor.utils.balance import Balance
from bittensor_wallet import Keypair, Wallet

from operations import FailedError, close, equal, facts, impossible, operation, rao, run_all, that, until, url

# Alpha that a call may move beside the amount it names: 1 rao of rounding in the share pool.
ROUNDING_RAO = 1


@dataclass
class State:
    """What the operations share."""

    facts: dict[str, Any] = field(default_factory=facts)
    chain: Any = None

    def subnet(self, netuid: int) -> dict[str, Any]:
        """A subnet of the genesis file."""
        return next(subnet for subnet in self.facts["subnets"] if subnet["netuid"] == netuid)

    def neurons(self, netuid: int) -> list[dict[str, Any]]:
        """Neurons of a subnet of the genesis file."""
        return list(self.subnet(netuid)["neurons"])


def key(uri: str) -> str:
    """Address of a key URI."""
    return str(Keypair.create_from_uri(uri).ss58_address)


def wallet(name: str, hotkey: str = "hot") -> Wallet:
    """A wallet of a development account, on disk as the SDK wants it."""
    made = Wallet(name=name.lower(), hotkey=hotkey)
    cold, hot = f"//{name}", f"//{name}//{hotkey}"
    made.set_coldkey(Keypair.create_from_uri(cold), encrypt=False, overwrite=True)
    made.set_coldkeypub(Keypair.create_from_uri(cold), overwrite=True)
    made.set_hotkey(Keypair.create_from_uri(hot), encrypt=False, overwrite=True)
    return made


def done(response: Any) -> Any:
    """Fails unless the SDK says that the extrinsic succeeded."""
    that(response.success, f"the SDK says: {response.message} {response.error or ''}")
    return response


def refused(response: Any, part: str) -> None:
    """Fails unless the SDK says that the extrinsic failed, and why."""
    that(not response.success, "the SDK says that it succeeded")
    said = f"{response.message} {response.error or ''}"
    that(part in said, f"the reason names no `{part}`: {said}")


def fee_of(response: Any) -> int:
    """What the chain's own event says was paid, in rao."""
    return int(response.extrinsic_receipt.total_fee_amount)


def price_near(got: int, told: str) -> None:
    """Fails unless a registration costs what the genesis file says, less what has decayed: half every 360 blocks."""
    that(0.5 * rao(told) < got <= rao(told), f"a registration costs {got} rao, told were {told} TAO")


# Reads that spec 461 does not answer, or this chain, and why. They are asked as well, and must fail for that reason.
ROOT_CLAIMS, LOCKS, GONE = "no baskets of root dividends", "no locks of stake", "gone before spec 461"
UNANSWERED = {
    "get_root_alpha_dividends_per_subnet": ROOT_CLAIMS,
    "get_root_claimable_all_rates": ROOT_CLAIMS,
    "get_root_claimable_rate": ROOT_CLAIMS,
    "get_root_claimable_stake": ROOT_CLAIMS,
    "get_root_claimed": ROOT_CLAIMS,
    "is_perpetual_lock": LOCKS,
    "get_proxy_filter": "what a proxy type allows is not told",
    "get_proxy_types": "what a proxy type allows is not told",
    "get_ema_tao_inflow": "the SDK expects a flow of a subnet that has none",
    "get_max_epochs_per_block": GONE,
    "get_root_claim_type": GONE,
    "get_vote_data": GONE,
}

# Methods of the class that look at nothing on the chain, wait, or need more than an address.
NO_READS = {"close", "setup_config", "wait_for_block", "get_liquidity_list", "get_extrinsic_fee", "get_transfer_fee"}


def read_names() -> list[str]:
    """Methods of the SDK that read."""
    begins = ("get_", "is_", "all_", "block", "does_")
    names = {"bonds", "commit_reveal_enabled", "difficulty", "immunity_period", "last_drand_round", "max_weight_limit"}
    names |= {"min_allowed_weights", "recycle", "subnetwork_n", "tempo", "tx_rate_limit", "weights_rate_limit"}
    names |= {name for name, _ in inspect.getmembers(bt.Subtensor, inspect.isfunction) if name.startswith(begins)}
    return sorted(names - NO_READS)


def complaint(s: State, name: str) -> str:
    """What a read raises, or nothing. It is called with values of this chain for what it asks."""
    hotkey, coldkey = key("//Alice//hot"), key("//Alice")
    values = {
        "netuid": 1, "uid": 0, "hotkey_ss58": hotkey, "hotkey": hotkey, "validator_hotkey": hotkey,
        "hotkey_ss58s": [hotkey], "coldkey_ss58": coldkey, "coldkey": coldkey, "address": coldkey,
        "real_account_ss58": coldkey, "delegate_account_ss58": coldkey, "coldkey_ss58s": [coldkey], "netuids": [1],
        "origin_netuid": 1, "destination_netuid": 2, "amount": Balance.from_tao(1), "crowdloan_id": 0,
        "param_name": "Tempo", "proposal_hash": "0x" + "00" * 32,
    }  # fmt: skip
    method = getattr(s.chain, name)
    parameters = inspect.signature(method).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind < p.VAR_POSITIONAL]
    try:
        method(**{parameter: values[parameter] for parameter in needed})
    except Exception as error:  # noqa: BLE001 - the caller judges
        return f"{name}: {type(error).__name__}: {error}"
    return ""


@operation("connect")
def _(s: State) -> None:
    s.chain = bt.Subtensor(network=url())
    that(s.chain.get_current_block() >= 0, "no block")
    equal("token", s.chain.substrate.token_symbol, "TAO")
    equal("ss58 format", s.chain.substrate.ss58_format, 42)


@operation("balance")
def _(s: State) -> None:
    equal("//Ferdie", s.chain.get_balance(key("//Ferdie")).rao, 10**15)
    for account in s.facts["accounts"]:
        equal(account["account"], s.chain.get_balance(key(account["account"])).rao, rao(account["balance"]))
    equal("nobody", s.chain.get_balance(key("//Nobody")).rao, 0)
    both = s.chain.get_balances(key("//Zoe"), key("//Yan"))
    equal("two at once", [both[key("//Zoe")].rao, both[key("//Yan")].rao], [rao("2.5"), rao("5000.123456789")])
    equal("existential deposit", s.chain.get_existential_deposit().rao, 500)


@operation("neurons")
def _(s: State) -> None:
    want = s.neurons(1)
    for got in (s.chain.neurons_lite(1), s.chain.neurons(1)):
        equal("hotkeys", [neuron.hotkey for neuron in got], [key(neuron["hotkey"]) for neuron in want])
        equal("coldkeys", [neuron.coldkey for neuron in got], [key(neuron["coldkey"]) for neuron in want])
        equal("uids", [neuron.uid for neuron in got], list(range(len(want))))
        equal("axon", (got[1].axon_info.ip, got[1].axon_info.port, got[1].axon_info.version), ("203.0.113.7", 8091, 7))
        equal("owner of the stake", list(got[0].stake_dict), [key("//Alice")])
        equal("stake", got[0].stake_dict[key("//Alice")].rao, rao("1000.5"))
        equal("permits", [neuron.validator_permit for neuron in got], [True, True, False, True])
    full = s.chain.neurons(1)
    equal("weights", full[0].weights, [(2, 40000), (3, 20000)])
    one = s.chain.neuron_for_uid(1, 1)
    equal("neuron by uid", (one.hotkey, one.coldkey), (key("//Bob//hot"), key("//Bob")))
    that(s.chain.neuron_for_uid(60, 1).is_null, "there is a neuron 60")


@operation("metagraph")
def _(s: State) -> None:
    want = s.neurons(1)
    graph = s.chain.metagraph(1)
    equal("n", int(graph.n), len(want))
    equal("hotkeys", graph.hotkeys, [key(neuron["hotkey"]) for neuron in want])
    equal("coldkeys", graph.coldkeys, [key(neuron["coldkey"]) for neuron in want])
    own = [float(neuron.get("stake", 0)) for neuron in want]
    for uid, alpha in enumerate(own):
        close(f"alpha stake of {uid}", float(graph.alpha_stake[uid]), alpha, 1e-3)
    # The root stake counts by the weight of TAO.
    root, tao_weight = float(want[3]["root_stake"]), 971718665099567868 / 2**64
    close("total stake of 3", float(graph.total_stake[3]), own[3] + root * tao_weight, 1e-3)
    equal("axons", [(axon.ip, axon.port) for axon in graph.axons][1], ("203.0.113.7", 8091))
    equal("tempo", graph.tempo, s.subnet(1)["hyperparameters"]["tempo"])
    equal("owner", (graph.owner_coldkey, graph.owner_hotkey), (key("//Alice"), key("//Alice//hot")))
    full = s.chain.metagraph(1, lite=False)
    equal("weights", full.weights.shape, (len(want), len(want)))
    close("weight", float(full.weights[0][2]), 2 / 3, 1e-4)
    info = s.chain.get_metagraph_info(1)
    equal("info hotkeys", info.hotkeys, graph.hotkeys)
    price_near(info.burn.rao, "0.25")
    both = s.chain.get_all_metagraphs_info()
    equal("all metagraphs", [graph.netuid for graph in both], [0, 1, 2])


@operation("hyperparameters")
def _(s: State) -> None:
    told = s.subnet(1)["hyperparameters"]
    got = s.chain.get_subnet_hyperparameters(1)
    for name in ("tempo", "min_allowed_weights", "immunity_period", "kappa", "weights_version"):
        equal(name, getattr(got, name), told[name])
    equal("max validators", got.max_validators, told["max_validators"])
    equal("commit reveal", got.commit_reveal_weights_enabled, False)
    equal("commit reveal of 2", s.chain.commit_reveal_enabled(2), True)
    equal("reveal period of 2", s.chain.get_subnet_reveal_period_epochs(2), 1)
    equal("tempo by itself", s.chain.tempo(1), told["tempo"])
    price_near(s.chain.recycle(1).rao, told["burn"])
    equal("rate limit", s.chain.weights_rate_limit(1), 0)
    equal("immunity", s.chain.immunity_period(1), told["immunity_period"])
    equal("a subnet that is not there", s.chain.get_subnet_hyperparameters(77), None)


@operation("subnets")
def _(s: State) -> None:
    equal("netuids", s.chain.get_all_subnets_netuid(), [0, 1, 2])
    equal("total", s.chain.get_total_subnets(), 3)
    equal("exists", [s.chain.subnet_exists(netuid) for netuid in (1, 2, 3)], [True, True, False])
    one, two = s.chain.subnet(1), s.chain.subnet(2)
    equal("owners", (one.owner_coldkey, two.owner_coldkey), (key("//Alice"), key("//Bob")))
    equal("all", [subnet.netuid for subnet in s.chain.all_subnets()], [0, 1, 2])
    equal("infos", [subnet.netuid for subnet in s.chain.get_all_subnets_info()], [0, 1, 2])
    equal("owner hotkey", s.chain.get_subnet_owner_hotkey(2), key("//Bob//hot"))
    equal("price of 1", s.chain.get_subnet_price(1).rao, 10**9)
    # The pool of the file: 1,000 TAO for 4,000 alpha; some emission has come in since.
    close("price of 2", s.chain.get_subnet_price(2).tao, 0.25, 0.01)
    equal("active", [s.chain.is_subnet_active(netuid) for netuid in (1, 2)], [True, True])
    that(s.chain.get_subnet_burn_cost().rao > 0, "a subnet costs nothing")


@operation("registered hotkeys")
def _(s: State) -> None:
    equal("uid", s.chain.get_uid_for_hotkey_on_subnet(key("//Dave//hot"), 1), 3)
    equal("uid of a stranger", s.chain.get_uid_for_hotkey_on_subnet(key("//Zoe"), 1), None)
    equal("on 2", s.chain.is_hotkey_registered_on_subnet(key("//Dave//hot"), 2), False)
    equal("anywhere", s.chain.is_hotkey_registered_any(key("//Dave//hot")), True)
    equal("netuids", sorted(s.chain.get_netuids_for_hotkey(key("//Alice//hot"))), [1, 2])
    equal("owner", s.chain.get_hotkey_owner(key("//Eve//hot")), key("//Eve"))
    equal("owned", s.chain.get_owned_hotkeys(key("//Eve")), [key("//Eve//hot")])
    equal("n", s.chain.subnetwork_n(1), 4)


@operation("maps and constants")
def _(s: State) -> None:
    uids = {str(hotkey): int(uid) for hotkey, uid in s.chain.query_map("SubtensorModule", "Uids", params=[1])}
    equal("Uids", uids, {key(neuron["hotkey"]): uid for uid, neuron in enumerate(s.neurons(1))})
    added = {int(netuid) for netuid, yes in s.chain.query_map_subtensor("NetworksAdded") if yes}
    equal("NetworksAdded", added, {0, 1, 2})
    equal("SS58 prefix", int(s.chain.query_constant("System", "SS58Prefix")), 42)
    equal("weights", dict(s.chain.weights(1)), {0: [(2, 40000), (3, 20000)]})


@operation("blocks and epochs")
def _(s: State) -> None:
    block = s.chain.get_current_block()
    that(s.chain.wait_for_block(block + 2), "the block did not come")
    info = s.chain.get_block_info(block)
    equal("number", info.number, block)
    equal("hash", s.chain.get_block_hash(block), info.hash)
    that(s.chain.get_timestamp(block) is not None, "no timestamp")
    that(s.chain.is_fast_blocks(), "blocks of 250 ms are not taken as fast")
    tempo = s.chain.tempo(1)
    at = s.chain.get_next_epoch_start_block(1)
    now = s.chain.get_current_block()
    that(now - 2 <= at <= now + tempo + 2, f"the next epoch is at {at}, the head at {now}, the tempo {tempo}")
    until("the next epoch", lambda: s.chain.get_next_epoch_start_block(1) > at)


@operation("serve axon")
def _(s: State) -> None:
    who = wallet("Charlie")
    axon = bt.Axon(wallet=who, ip="198.51.100.9", port=8099, external_ip="198.51.100.9", external_port=8123)
    done(s.chain.serve_axon(1, axon))
    got = s.chain.neuron_for_uid(2, 1).axon_info
    equal("axon", (got.ip, got.port, got.ip_type), ("198.51.100.9", 8123, 4))
    equal("axon in the metagraph", s.chain.metagraph(1).axons[2].ip_str(), "/ipv4/198.51.100.9:8123")


@operation("serve axon with a certificate")
def _(s: State) -> None:
    who = wallet("Dave")
    axon = bt.Axon(wallet=who, ip="198.51.100.10", port=8099, external_ip="198.51.100.10", external_port=8124)
    # One byte names the algorithm, the rest is the public key.
    done(s.chain.serve_axon(1, axon, certificate="\x01" + "k" * 32))
    equal("axon", s.chain.neuron_for_uid(3, 1).axon_info.port, 8124)
    that(key("//Dave//hot") in s.chain.get_all_neuron_certificates(1), "there is no certificate")


@operation("set weights")
def _(s: State) -> None:
    who = wallet("Bob")
    done(s.chain.set_weights(who, netuid=1, uids=[2, 3], weights=[0.25, 0.75]))
    equal("weights", dict(s.chain.weights(1))[1], [(2, 21845), (3, 65535)])
    since = s.chain.blocks_since_last_update(1, 1)
    that(0 <= since < 100, f"last update is {since} blocks ago")
    # Both validators like 3 better than nothing; the epoch gives both miners their share.
    until("incentive of miner 3", lambda: s.chain.metagraph(1).incentive[3] > 0)


@operation("set weights, commit-reveal by time lock")
def _(s: State) -> None:
    who = wallet("Alice")
    response = done(s.chain.set_weights(who, netuid=2, uids=[0, 2], weights=[0.5, 0.5], block_time=0.25))
    commits = s.chain.get_timelocked_weight_commits(2)
    that(key("//Alice//hot") in [commit[0] for commit in commits], f"no commit of Alice: {commits}")
    commit = next(commit for commit in commits if commit[0] == key("//Alice//hot"))
    equal("reveal round", commit[3], response.data["reveal_round"])
    equal("block", commit[1], s.chain.substrate.get_block_number(response.extrinsic_receipt.block_hash))


@operation("set weights, commit-reveal by hash")
def _(s: State) -> None:
    who, salt = wallet("Bob"), [1, 2, 3, 4, 5, 6, 7, 8]
    start = s.chain.get_subnet_epoch_index(2)
    until("a new epoch", lambda: s.chain.get_subnet_epoch_index(2) > start)
    words = {"uids": [1, 2], "weights": [32768, 65535], "salt": salt}
    done(s.chain.commit_weights(who, netuid=2, wait_for_inclusion=True, wait_for_finalization=True, **words))
    commits = s.chain.substrate.query("SubtensorModule", "WeightCommits", [2, key("//Bob//hot")])
    # A reveal is legal in the next epoch only.
    _hash, committed, _block, _legacy = next(iter(getattr(commits, "value", commits)))
    until("the epoch of the reveal", lambda: s.chain.get_subnet_epoch_index(2) == committed + 1)
    done(s.chain.reveal_weights(who, netuid=2, **words))
    equal("weights", dict(s.chain.weights(2))[0], [(1, 32768), (2, 65535)])


@operation("register")
def _(s: State) -> None:
    who = wallet("Ferdie")
    price = s.chain.recycle(1).rao
    before = s.chain.get_balance(key("//Ferdie")).rao
    response = done(s.chain.burned_register(who, netuid=1))
    equal("uid", s.chain.get_uid_for_hotkey_on_subnet(key("//Ferdie//hot"), 1), 4)
    equal("n", s.chain.subnetwork_n(1), 5)
    paid = before - s.chain.get_balance(key("//Ferdie")).rao - fee_of(response)
    # The price falls with every block until the one that includes it.
    that(0.8 * price <= paid <= price, f"paid {paid} for a price of {price}")
    that(s.chain.recycle(1).rao > paid, "the next registration is not dearer")
    # The SDK takes whom it finds registered as registered, without an extrinsic.
    done(s.chain.burned_register(who, netuid=1))
    equal("n after another try", s.chain.subnetwork_n(1), 5)


@operation("register with a price limit")
def _(s: State) -> None:
    who = wallet("Eve", "second")
    refused(s.chain.register(who, netuid=1, limit_price=Balance.from_rao(1)), "RegistrationPriceLimitExceeded")
    done(s.chain.register(who, netuid=1, limit_price=Balance.from_tao(5)))
    equal("uid", s.chain.get_uid_for_hotkey_on_subnet(key("//Eve//second"), 1), 5)


@operation("register subnet and start it")
def _(s: State) -> None:
    who = wallet("Yan", "owner")
    done(s.chain.register_subnet(who))
    equal("netuids", s.chain.get_all_subnets_netuid(), [0, 1, 2, 3])
    subnet = s.chain.subnet(3)
    equal("owner", (subnet.owner_coldkey, subnet.owner_hotkey), (key("//Yan"), key("//Yan//owner")))
    equal("tempo of a new subnet", s.chain.tempo(3), 360)
    done(s.chain.start_call(who, netuid=3))
    equal("active", s.chain.is_subnet_active(3), True)
    identity = SubnetIdentity(
        subnet_name="conformance",
        github_repo="",
        subnet_contact="a@b.example",
        subnet_url="",
        logo_url="",
        discord="",
        description="a subnet",
        additional="",
    )
    done(s.chain.set_subnet_identity(who, netuid=3, subnet_identity=identity))
    equal("identity", s.chain.subnet(3).subnet_identity.subnet_name, "conformance")


@operation("stake")
def _(s: State) -> None:
    who, hot, cold = wallet("Charlie"), key("//Charlie//hot"), key("//Charlie")
    before = s.chain.get_balance(cold).rao
    response = done(s.chain.add_stake(who, netuid=1, hotkey_ss58=hot, amount=Balance.from_tao(10)))
    equal("stake", s.chain.get_stake(cold, hot, 1).rao, rao("10"))
    equal("balance", s.chain.get_balance(cold).rao, before - rao("10") - fee_of(response))
    infos = {info.netuid: info.stake.rao for info in s.chain.get_stake_info_for_coldkey(cold)}
    equal("stake by coldkey", infos, {1: rao("10")})
    done(s.chain.unstake(who, netuid=1, hotkey_ss58=hot, amount=Balance.from_tao(4).set_unit(1)))
    equal("stake left", s.chain.get_stake(cold, hot, 1).rao, rao("6"))
    # On a subnet with a pool: what the chain said it would give is what comes.
    promised = s.chain.sim_swap(origin_netuid=0, destination_netuid=2, amount=Balance.from_tao(5))
    done(s.chain.add_stake(who, netuid=2, hotkey_ss58=key("//Bob//hot"), amount=Balance.from_tao(5)))
    got = s.chain.get_stake(cold, key("//Bob//hot"), 2).rao
    close("alpha for 5 TAO", got, promised.alpha_amount.rao, promised.alpha_amount.rao * 0.01)


@operation("stake with a limit on the price")
def _(s: State) -> None:
    who, hot, cold = wallet("Dave"), key("//Bob//hot"), key("//Dave")
    words = {"netuid": 2, "hotkey_ss58": hot, "safe_staking": True}
    # A hundred TAO into a pool of a thousand moves the price by a fifth.
    refused(s.chain.add_stake(who, amount=Balance.from_tao(100), rate_tolerance=0.001, **words), "lippage")
    done(s.chain.add_stake(who, amount=Balance.from_tao(100), rate_tolerance=0.5, **words))
    that(s.chain.get_stake(cold, hot, 2).rao > rao("300"), "not enough alpha")


@operation("move, transfer and swap stake")
def _(s: State) -> None:
    who, hot, cold = wallet("Charlie"), key("//Charlie//hot"), key("//Charlie")
    done(
        s.chain.move_stake(
            who,
            origin_netuid=1,
            origin_hotkey_ss58=hot,
            destination_netuid=1,
            destination_hotkey_ss58=key("//Bob//hot"),
            amount=Balance.from_tao(1).set_unit(1),
        )
    )
    close("moved", s.chain.get_stake(cold, key("//Bob//hot"), 1).rao, rao("1"), ROUNDING_RAO)
    done(
        s.chain.transfer_stake(
            who,
            destination_coldkey_ss58=key("//Zoe"),
            hotkey_ss58=hot,
            origin_netuid=1,
            destination_netuid=1,
            amount=Balance.from_tao(2).set_unit(1),
        )
    )
    close("transferred", s.chain.get_stake(key("//Zoe"), hot, 1).rao, rao("2"), ROUNDING_RAO)
    done(
        s.chain.swap_stake(
            who, hotkey_ss58=hot, origin_netuid=1, destination_netuid=2, amount=Balance.from_tao(1).set_unit(1)
        )
    )
    that(s.chain.get_stake(cold, hot, 2).rao > rao("3"), "a TAO of subnet 1 is worth more than 3 alpha of subnet 2")
    done(s.chain.unstake_all(who, netuid=1, hotkey_ss58=hot))
    equal("all is out", s.chain.get_stake(cold, hot, 1).rao, 0)


@operation("transfer")
def _(s: State) -> None:
    who = wallet("Ferdie")
    sender, receiver = key("//Ferdie"), key("//Xerxes")
    before, amount = s.chain.get_balance(sender).rao, Balance.from_rao(1_234_567_890)
    call = s.chain.compose_call("Balances", "transfer_keep_alive", {"dest": receiver, "value": amount.rao})
    # The extrinsic that the SDK sends is mortal, and the lifetime has a weight.
    estimate = s.chain.substrate.get_payment_info(call, who.coldkey, era={"period": 128})["partial_fee"]
    that(s.chain.get_transfer_fee(who, receiver, amount).rao > 0, "a transfer costs nothing")
    response = done(s.chain.transfer(who, destination_ss58=receiver, amount=amount))
    equal("received", s.chain.get_balance(receiver).rao, amount.rao)
    equal("sent", before - s.chain.get_balance(sender).rao, amount.rao + fee_of(response))
    equal("fee", fee_of(response), estimate)
    poor = wallet("Zoe")
    refused(s.chain.transfer(poor, destination_ss58=receiver, amount=Balance.from_tao(1000)), "balance")


@operation("commitment")
def _(s: State) -> None:
    who = wallet("Bob")
    done(s.chain.set_commitment(who, netuid=1, data="https://models.example/7"))
    equal("commitment", s.chain.get_commitment(1, 1), "https://models.example/7")
    equal("all", s.chain.get_all_commitments(1), {key("//Bob//hot"): "https://models.example/7"})


@operation("commitment by time lock")
def _(s: State) -> None:
    who = wallet("Dave")
    success, _round = s.chain.set_reveal_commitment(
        who, netuid=1, data="later", blocks_until_reveal=20, block_time=0.25
    )
    that(success, "the SDK says that it failed")
    fields = s.chain.get_commitment_metadata(1, key("//Dave//hot"))["info"]["fields"]
    that("TimelockEncrypted" in str(fields), f"the commitment is {fields}")


@operation("proxy")
def _(s: State) -> None:
    owner, agent = wallet("Eve"), wallet("Ferdie")
    done(s.chain.add_proxy(owner, delegate_ss58=key("//Ferdie"), proxy_type="Staking", delay=0))
    proxies, _deposit = s.chain.get_proxies_for_real_account(key("//Eve"))
    equal("proxies", [(proxy.delegate, proxy.proxy_type) for proxy in proxies], [(key("//Ferdie"), "Staking")])
    stake = s.chain.compose_call(
        "SubtensorModule", "add_stake", {"hotkey": key("//Eve//hot"), "netuid": 1, "amount_staked": rao("3")}
    )
    done(s.chain.proxy(agent, real_account_ss58=key("//Eve"), force_proxy_type=None, call=stake))
    equal("stake of the real account", s.chain.get_stake(key("//Eve"), key("//Eve//hot"), 1).rao, rao("3"))
    done(s.chain.remove_proxy(owner, delegate_ss58=key("//Ferdie"), proxy_type="Staking", delay=0))
    equal("no proxies", s.chain.get_proxies_for_real_account(key("//Eve"))[0], [])


@operation("children and take")
def _(s: State) -> None:
    who, hot = wallet("Alice"), key("//Alice//hot")
    child = key("//Dave//hot")
    done(s.chain.set_children(who, netuid=1, hotkey_ss58=hot, children=[(0.25, child)]))
    found, children, error = s.chain.get_children(hot, 1)
    pending, _cooldown = s.chain.get_children_pending(hot, 1)
    named = [address for _share, address in [*children, *pending]]
    that(child in named, f"no child: {found} {children} {error} {pending}")
    take = s.chain.get_delegate_take(hot)
    close("take", take, 11796 / 65535, 1e-4)
    done(s.chain.set_delegate_take(who, hotkey_ss58=hot, take=0.1))
    close("new take", s.chain.get_delegate_take(hot), 0.1, 1e-4)


@operation("root network")
def _(s: State) -> None:
    who = wallet("Dave")
    done(s.chain.root_register(who))
    that(s.chain.get_uid_for_hotkey_on_subnet(key("//Dave//hot"), 0) is not None, "not on the root network")


@operation("delegates")
def _(s: State) -> None:
    delegates = {delegate.hotkey_ss58: delegate for delegate in s.chain.get_delegates()}
    that(key("//Bob//hot") in delegates, f"Bob's hotkey is no delegate: {sorted(delegates)}")
    bob = delegates[key("//Bob//hot")]
    equal("owner", bob.owner_ss58, key("//Bob"))
    one = s.chain.get_delegate_by_hotkey(key("//Bob//hot"))
    equal("registrations", sorted(one.registrations), [1, 2])


@operation("sudo")
def _(s: State) -> None:
    who = wallet("Alice")
    inner = s.chain.compose_call(
        "AdminUtils", "sudo_set_weights_set_rate_limit", {"netuid": 1, "weights_set_rate_limit": 500}
    )
    call = s.chain.compose_call("Sudo", "sudo", {"call": inner})
    done(s.chain.sign_and_send_extrinsic(call, who))
    equal("rate limit", s.chain.weights_rate_limit(1), 500)


@operation("errors by name")
def _(s: State) -> None:
    call = s.chain.compose_call(
        "SubtensorModule", "set_weights", {"netuid": 1, "dests": [2], "weights": [1], "version_key": 0}
    )
    # Refused by the pool: the limit that sudo has set is not over for Bob.
    refused(s.chain.sign_and_send_extrinsic(call, wallet("Bob"), sign_with="hotkey"), "Custom error: 6")
    # Refused by the dispatch: the runtime's own names.
    call = s.chain.compose_call(
        "SubtensorModule", "add_stake", {"hotkey": key("//Stranger"), "netuid": 1, "amount_staked": rao("1")}
    )
    refused(s.chain.sign_and_send_extrinsic(call, wallet("Bob")), "HotKeyAccountNotExists")
    refused(s.chain.start_call(wallet("Bob"), netuid=3), "NotSubnetOwner")


@operation("asynchronous client")
def _(s: State) -> None:
    async def look() -> tuple[Any, Any, int]:
        async with bt.AsyncSubtensor(network=url()) as chain:
            graph = await chain.metagraph(1)
            return graph, await chain.get_balance(key("//Yan//none")), await chain.get_current_block()

    graph, balance, block = asyncio.run(look())
    equal("hotkeys", graph.hotkeys[:4], [key(neuron["hotkey"]) for neuron in s.neurons(1)])
    equal("balance", balance.rao, 0)
    that(block > 0, "no block")


@operation("every other read answers")
def _(s: State) -> None:
    names = [name for name in read_names() if name not in UNANSWERED]
    problems = list(filter(None, (complaint(s, name) for name in names)))
    that(not problems, f"{len(problems)} of {len(names)} reads: {'; '.join(problems)}")
    that(len(names) > 100, f"there are only {len(names)} reads")


@impossible(
    "reads of baskets, locks and votes",
    why="; ".join(dict.fromkeys(UNANSWERED.values())),
    error="none of the 12 answers",
)
def _(s: State) -> None:
    answered = [name for name in UNANSWERED if not complaint(s, name)]
    equal("reads that answer", answered, [])
    raise FailedError(f"none of the {len(UNANSWERED)} answers")


@impossible(
    "MEV-shielded extrinsic",
    why="the encrypted pool of the real network needs block authors that share a rotating key",
    error="(?i)mev|shield|NextKey",
)
def _(s: State) -> None:
    who = wallet("Ferdie")
    done(s.chain.transfer(who, destination_ss58=key("//Xerxes"), amount=Balance.from_tao(1), mev_protection=True))


if __name__ == "__main__":
    run_all(State())
