"""PyPI bittensor 11: the rewritten SDK: reads by namespace, intents, raw calls, subscriptions.

What it does through the encrypted pool of the real network is done by raw calls instead.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import bittensor as bt
from bittensor.sp_core import Keypair

from operations import close, equal, facts, impossible, operation, rao, run_all, that, until, url

calls, storage, constants = bt.calls, bt.storage, bt.constants


@dataclass(frozen=True)
class DevWallet:
    """What the SDK takes as a wallet: the keys of a development account."""

    coldkey: Any
    hotkey: Any

    @property
    def coldkeypub(self) -> Any:
        """The coldkey again: there is no secret to keep."""
        return self.coldkey


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


def wallet(name: str, hotkey: str = "hot") -> DevWallet:
    """The wallet of a development account."""
    return DevWallet(Keypair.create_from_uri(f"//{name}"), Keypair.create_from_uri(f"//{name}//{hotkey}"))


def fee_of(result: Any) -> int:
    """What the chain's own event says was paid, in rao."""
    for event in result.events:
        if event["event_id"] == "TransactionFeePaid":
            return int(event["attributes"]["actual_fee"])
    raise AssertionError(f"no TransactionFeePaid among {result.events}")


def event_ids(result: Any) -> list[str]:
    """Names of the events of an extrinsic."""
    return [event["event_id"] for event in result.events]


@operation("connect")
def _(s: State) -> None:
    s.chain = bt.Subtensor(url(), fallback_endpoints=[], archive_endpoints=[])
    that(s.chain.block >= 0, "no block")
    that(s.chain.finalized_block <= s.chain.block, "finality is ahead")
    that(s.chain.spec_version > 0, "no spec version")
    equal("fast blocks", s.chain.is_fast_blocks(), True)
    equal("constant", s.chain.constant(constants.System.SS58Prefix), 42)


@operation("balance")
def _(s: State) -> None:
    equal("//Ferdie", s.chain.balances.get(key("//Ferdie")).rao, 10**15)
    wanted = {key(account["account"]): rao(account["balance"]) for account in s.facts["accounts"]}
    got = s.chain.balances.get_many(list(wanted))
    equal("two at once", {address: balance.rao for address, balance in got.items()}, wanted)
    equal("existential deposit", s.chain.balances.existential_deposit().rao, 500)


@operation("neurons")
def _(s: State) -> None:
    want = s.neurons(1)
    for lite in (True, False):
        got = s.chain.read("neurons", netuid=1, lite=lite)
        equal("hotkeys", [neuron.hotkey for neuron in got], [key(neuron["hotkey"]) for neuron in want])
        equal("coldkeys", [neuron.coldkey for neuron in got], [key(neuron["coldkey"]) for neuron in want])
        equal("permits", [neuron.validator_permit for neuron in got], [True, True, False, True])
        equal("port", got[1].raw["axon_info"]["port"], 8091)
    equal("stake", got[0].total_stake.rao, rao("1000.5"))
    equal("weights", [tuple(pair) for pair in got[0].raw["weights"]], [(2, 40000), (3, 20000)])
    equal("uid", s.chain.read("uid", netuid=1, hotkey_ss58=key("//Dave//hot")), 3)
    equal("netuids", sorted(s.chain.read("netuids_for_hotkey", hotkey_ss58=key("//Alice//hot"))), [1, 2])
    equal("owner", s.chain.read("hotkey_owner", hotkey_ss58=key("//Eve//hot")), key("//Eve"))


@operation("metagraph")
def _(s: State) -> None:
    want = s.neurons(1)
    graph = s.chain.subnets.metagraph(1)
    equal("hotkeys", graph.hotkeys, [key(neuron["hotkey"]) for neuron in want])
    equal("coldkeys", graph.coldkeys, [key(neuron["coldkey"]) for neuron in want])
    equal("tempo", graph.tempo, s.subnet(1)["hyperparameters"]["tempo"])
    equal("owner", (graph.owner_coldkey, graph.owner_hotkey), (key("//Alice"), key("//Alice//hot")))
    equal("axon", graph.neuron(1).axon, "203.0.113.7:8091")
    alpha = [neuron.alpha_stake.rao for neuron in graph.neurons]
    equal("alpha stake", alpha, [rao(neuron.get("stake", "0")) for neuron in want])
    equal("root stake", graph.neuron(3).tao_stake.rao, rao(want[3]["root_stake"]))
    close("price of 2", s.chain.subnets.metagraph(2).price, 0.25, 0.01)
    equal("uids", (graph.num_uids, graph.max_uids), (4, 64))
    equal("permits", [neuron.uid for neuron in graph.validators], [0, 1, 3])


@operation("hyperparameters")
def _(s: State) -> None:
    told = s.subnet(1)["hyperparameters"]
    got = s.chain.read("subnet_hyperparameters", netuid=1)
    for name in ("tempo", "min_allowed_weights", "immunity_period", "kappa", "weights_version", "max_validators"):
        want = told.get(name, told.get({"max_validators": "max_validators"}.get(name, name)))
        equal(name, got[name], want)
    equal("commit reveal", got["commit_reveal_weights_enabled"], False)
    equal("commit reveal of 2", s.chain.read("commit_reveal_enabled", netuid=2), True)
    equal("rate limit", s.chain.read("weights_rate_limit", netuid=1), 0)
    equal("immunity", s.chain.read("immunity_period", netuid=1), told["immunity_period"])


@operation("subnets")
def _(s: State) -> None:
    equal("netuids", [subnet.netuid for subnet in s.chain.subnets.all()], [0, 1, 2])
    equal("neurons", s.chain.read("subnet", netuid=1).neuron_count, 4)
    prices = s.chain.read("alpha_prices")
    equal("price of 1", prices[1], 1.0)
    close("price of 2", prices[2], 0.25, 0.01)
    that(s.chain.read("subnet_registration_cost").rao > 0, "a subnet costs nothing")
    quote = s.chain.read("quote_stake", netuid=2, amount_tao=10)
    close("alpha for 10 TAO", quote.alpha.rao, rao("4000") * 10 / 1010, rao("0.5"))
    equal("mechanisms", s.chain.read("mechanism_count", netuid=1), 1)


@operation("maps and constants")
def _(s: State) -> None:
    uids = {str(hotkey): int(uid) for hotkey, uid in s.chain.query_map(storage.SubtensorModule.Uids, [1])}
    equal("Uids", uids, {key(neuron["hotkey"]): uid for uid, neuron in enumerate(s.neurons(1))})
    tempos = s.chain.query_batch(storage.SubtensorModule.Tempo, [[1], [2]])
    equal("tempos", tempos, [subnet["hyperparameters"]["tempo"] for subnet in s.facts["subnets"]])
    rows = s.chain.read("weights", netuid=1)
    close("weight", rows[0][2], 2 / 3, 1e-9)


@operation("stake positions")
def _(s: State) -> None:
    positions = {(p.hotkey, p.netuid): p.stake.rao for p in s.chain.staking.stake_for_coldkey(key("//Bob"))}
    equal("of Bob on 1", positions[(key("//Bob//hot"), 1)], rao("500"))
    that((key("//Bob//hot"), 2) in positions, "no stake of Bob on 2")
    free = s.chain.staking.stake_availability(coldkey_ss58=key("//Bob"), netuid=1)
    equal("available", free["available"].rao, rao("500"))
    value = s.chain.staking.stake_value_for_coldkey(key("//Charlie"))
    equal("of Charlie", value.positions, [])


@operation("blocks and epochs")
def _(s: State) -> None:
    async def follow() -> tuple[list[int], list[int], Any]:
        async with bt.Subtensor(url(), fallback_endpoints=[], archive_endpoints=[]) as chain:
            heads: list[int] = []
            async for header in chain.blocks():
                heads.append(header.number)
                if len(heads) == 3:
                    break
            final: list[int] = []
            async for header in chain.blocks(finalized=True):
                final.append(header.number)
                if len(final) == 2:
                    break
            return heads, final, await chain.wait_for_epoch(1, timeout=30)

    heads, final, epoch = asyncio.run(follow())
    equal("heads", heads, list(range(heads[0], heads[0] + 3)))
    equal("finalized heads", final, list(range(final[0], final[0] + 2)))
    tempo = s.subnet(1)["hyperparameters"]["tempo"]
    equal("epoch", epoch.block - epoch.previous, tempo)
    status = s.chain.read("epoch_status", netuid=1)
    equal("tempo", status["tempo"], tempo)
    that(0 <= s.chain.read("blocks_until_next_epoch", netuid=1) <= tempo, "the next epoch is too far away")
    info = s.chain.block_info(heads[0])
    equal("block", info.number, heads[0])
    past = s.chain.at(heads[0])
    equal("tempo in the past", past.query(storage.SubtensorModule.Tempo, [1]), tempo)


@operation("serve axon")
def _(s: State) -> None:
    result = s.chain.execute(bt.ServeAxon(netuid=1, ip="198.51.100.9", port=8123), wallet("Charlie"))
    result.raise_for_failure()
    that("AxonServed" in event_ids(result), f"no AxonServed among {event_ids(result)}")
    equal("axon", s.chain.subnets.metagraph(1).neuron(2).axon, "198.51.100.9:8123")
    s.chain.execute(bt.ResetAxon(netuid=1), wallet("Charlie")).raise_for_failure()
    equal("axon after reset", s.chain.read("neurons", netuid=1)[2].raw["axon_info"]["ip"], 0)


@operation("serve axon with a certificate")
def _(s: State) -> None:
    intent = bt.ServeAxonTls(netuid=1, ip="2001:db8::7", port=8124, certificate="0x01" + "6b" * 32)
    s.chain.execute(intent, wallet("Dave")).raise_for_failure()
    that("2001:db8::7" in str(s.chain.subnets.metagraph(1).neuron(3).axon), "no axon")
    got = s.chain.query(storage.SubtensorModule.NeuronCertificates, [1, key("//Dave//hot")])
    equal("algorithm", got["algorithm"], 1)


@operation("serve prometheus")
def _(s: State) -> None:
    s.chain.execute(bt.ServePrometheus(netuid=1, ip="198.51.100.9", port=9100), wallet("Charlie")).raise_for_failure()
    got = s.chain.query(storage.SubtensorModule.Prometheus, [1, key("//Charlie//hot")])
    equal("port", got["port"], 9100)


@operation("set weights")
def _(s: State) -> None:
    call = calls.SubtensorModule.set_mechanism_weights(
        netuid=1, mecid=0, dests=[2, 3], weights=[21845, 65535], version_key=0
    )
    s.chain.submit_call(call, wallet("Bob"), signer="hotkey").raise_for_failure()
    equal("weights", s.chain.read("weights", netuid=1)[1], {2: 21845 / 87380, 3: 65535 / 87380})
    that(s.chain.read("blocks_since_last_update", netuid=1, uid=1) < 100, "no last update")
    until("incentive of miner 3", lambda: s.chain.subnets.metagraph(1).neuron(3).incentive > 0)


@operation("set weights by intent")
def _(s: State) -> None:
    s.chain.execute(bt.SetWeights(netuid=1, uids=[2, 3], weights=[0.5, 0.5]), wallet("Alice")).raise_for_failure()
    equal("weights", s.chain.read("weights", netuid=1)[0], {2: 0.5, 3: 0.5})


@operation("set weights, commit-reveal by time lock")
def _(s: State) -> None:
    # The intent sees that the subnet wants commits, and encrypts.
    intent = bt.SetWeights(netuid=2, uids=[0, 2], weights=[0.5, 0.5])
    result = s.chain.execute(intent, wallet("Alice")).raise_for_failure()
    that("TimelockedWeightsCommitted" in event_ids(result), f"no event of it among {event_ids(result)}")
    commits = s.chain.read("timelocked_weight_commits", netuid=2)
    that(key("//Alice//hot") in str(commits), f"no commit of Alice: {commits}")


@operation("register")
def _(s: State) -> None:
    before = s.chain.balances.get(key("//Ferdie")).rao
    price = s.chain.read("burn", netuid=1).rao
    call = calls.SubtensorModule.burned_register(netuid=1, hotkey=key("//Ferdie//hot"))
    result = s.chain.submit_call(call, wallet("Ferdie")).raise_for_failure()
    equal("uid", s.chain.read("uid", netuid=1, hotkey_ss58=key("//Ferdie//hot")), 4)
    paid = before - s.chain.balances.get(key("//Ferdie")).rao - fee_of(result)
    that(0.8 * price <= paid <= price, f"paid {paid} for a price of {price}")


@operation("stake")
def _(s: State) -> None:
    who, hot, cold = wallet("Charlie"), key("//Charlie//hot"), key("//Charlie")
    before = s.chain.balances.get(cold).rao
    call = calls.SubtensorModule.add_stake(hotkey=hot, netuid=1, amount_staked=rao("10"))
    result = s.chain.submit_call(call, who).raise_for_failure()
    stake = s.chain.read("stake", coldkey_ss58=cold, hotkey_ss58=hot, netuid=1)
    equal("stake", stake.rao, rao("10"))
    equal("balance", s.chain.balances.get(cold).rao, before - rao("10") - fee_of(result))
    call = calls.SubtensorModule.remove_stake(hotkey=hot, netuid=1, amount_unstaked=rao("4"))
    s.chain.submit_call(call, who).raise_for_failure()
    equal("stake left", s.chain.read("stake", coldkey_ss58=cold, hotkey_ss58=hot, netuid=1).rao, rao("6"))


@operation("stake by intent")
def _(s: State) -> None:
    who, hot, cold = wallet("Eve"), key("//Bob//hot"), key("//Eve")
    quote = s.chain.read("quote_stake", netuid=2, amount_tao=5)
    s.chain.execute(bt.AddStake(hotkey_ss58=hot, netuid=2, amount_tao=5), who).raise_for_failure()
    got = s.chain.read("stake", coldkey_ss58=cold, hotkey_ss58=hot, netuid=2)
    close("alpha", got.rao, quote.alpha.rao, quote.alpha.rao * 0.01)
    s.chain.execute(bt.RemoveStake(hotkey_ss58=hot, netuid=2, amount_alpha=3), who).raise_for_failure()
    left = s.chain.read("stake", coldkey_ss58=cold, hotkey_ss58=hot, netuid=2)
    close("alpha left", left.rao, got.rao - rao("3"), 1)


@operation("transfer")
def _(s: State) -> None:
    who, sender, receiver = wallet("Ferdie"), key("//Ferdie"), key("//Xerxes")
    before = s.chain.balances.get(sender).rao
    intent = bt.Transfer(dest_ss58=receiver, amount_tao=1.25)
    plan = s.chain.plan(intent, who)
    result = s.chain.execute(intent, who).raise_for_failure()
    equal("received", s.chain.balances.get(receiver).rao, rao("1.25"))
    equal("sent", before - s.chain.balances.get(sender).rao, rao("1.25") + fee_of(result))
    that(plan.fee.rao > 0, "the plan names no fee")


@operation("commitment")
def _(s: State) -> None:
    data = b"https://models.example/7"
    call = calls.Commitments.set_commitment(netuid=1, info={"fields": [[{f"Raw{len(data)}": "0x" + data.hex()}]]})
    s.chain.submit_call(call, wallet("Bob"), signer="hotkey").raise_for_failure()
    equal("commitment", s.chain.read("commitment", netuid=1, hotkey_ss58=key("//Bob//hot")).data, data.decode())
    rows = s.chain.read("commitments", netuid=1)
    equal("all", [(row["hotkey"], row["commitment"]) for row in rows], [(key("//Bob//hot"), data.decode())])
    graph = s.chain.subnets.metagraph(1)
    that(graph.neuron(1).commitment is not None, "the metagraph has no commitment of 1")


@operation("proxy")
def _(s: State) -> None:
    s.chain.execute(bt.AddProxy(delegate_ss58=key("//Ferdie"), proxy_type="Staking"), wallet("Eve")).raise_for_failure()
    proxies = s.chain.read("proxies", coldkey_ss58=key("//Eve"))["proxies"]
    equal("proxies", [proxy["delegate"] for proxy in proxies], [key("//Ferdie")])
    intent = bt.AddStake(hotkey_ss58=key("//Eve//hot"), netuid=1, amount_tao=3)
    s.chain.execute(intent, wallet("Ferdie"), proxy_for=key("//Eve"), proxy_type="Staking").raise_for_failure()
    stake = s.chain.read("stake", coldkey_ss58=key("//Eve"), hotkey_ss58=key("//Eve//hot"), netuid=1)
    equal("stake of the real account", stake.rao, rao("3"))
    s.chain.execute(
        bt.RemoveProxy(delegate_ss58=key("//Ferdie"), proxy_type="Staking"), wallet("Eve")
    ).raise_for_failure()
    equal("no proxies", s.chain.read("proxies", coldkey_ss58=key("//Eve"))["proxies"], [])


@operation("register subnet and start it")
def _(s: State) -> None:
    who = wallet("Yan", "owner")
    s.chain.execute(bt.RegisterSubnet(), who).raise_for_failure()
    equal("netuids", [subnet.netuid for subnet in s.chain.subnets.all()], [0, 1, 2, 3])
    s.chain.execute(bt.StartCall(netuid=3), who).raise_for_failure()
    equal("started", s.chain.query(storage.SubtensorModule.SubtokenEnabled, [3]), True)
    s.chain.execute(bt.SetSubnetIdentity(netuid=3, subnet_name="conformance"), who).raise_for_failure()
    equal("identity", s.chain.read("subnet_identity", netuid=3)["subnet_name"], "conformance")


@operation("children and take")
def _(s: State) -> None:
    who, hot, child = wallet("Alice"), key("//Alice//hot"), key("//Dave//hot")
    s.chain.execute(bt.SetChildren(hotkey_ss58=hot, netuid=1, children=[[0.25, child]]), who).raise_for_failure()
    pending = s.chain.read("pending_children", hotkey_ss58=hot, netuid=1)
    children = s.chain.read("children", hotkey_ss58=hot, netuid=1)
    that(child in str(pending) + str(children), f"no child: {pending} {children}")
    s.chain.execute(bt.DecreaseTake(hotkey_ss58=hot, take=0.1), who).raise_for_failure()
    close("take", s.chain.read("delegate_take", hotkey_ss58=hot)["take"], 0.1, 1e-4)


@operation("delegates")
def _(s: State) -> None:
    one = s.chain.read("delegate", hotkey_ss58=key("//Bob//hot"))
    equal("owner", one.owner, key("//Bob"))
    equal("is delegate", s.chain.read("is_delegate", hotkey_ss58=key("//Bob//hot")), True)
    that(s.chain.read("delegated", coldkey_ss58=key("//Bob")), "Bob has delegated nothing")


@operation("batch")
def _(s: State) -> None:
    inner = [
        s.chain.compose(calls.Balances.transfer_keep_alive(dest=key("//Uma"), value=rao("1"))),
        s.chain.compose(calls.Balances.transfer_keep_alive(dest=key("//Vic"), value=rao("2"))),
    ]
    s.chain.submit_call(calls.Utility.batch_all(calls=inner), wallet("Ferdie")).raise_for_failure()
    equal("both", [s.chain.balances.get(key(name)).rao for name in ("//Uma", "//Vic")], [rao("1"), rao("2")])


@operation("sudo")
def _(s: State) -> None:
    inner = s.chain.compose(calls.AdminUtils.sudo_set_weights_set_rate_limit(netuid=1, weights_set_rate_limit=500))
    s.chain.submit_call(calls.Sudo.sudo(call=inner), wallet("Alice")).raise_for_failure()
    equal("rate limit", s.chain.read("weights_rate_limit", netuid=1), 500)


@operation("errors by name")
def _(s: State) -> None:
    def refused(name: str, call: Any, who: DevWallet, **words: Any) -> None:
        try:
            said = s.chain.submit_call(call, who, **words)
            said = said.error or "it succeeded"
        except bt.BittensorError as error:
            said = error
        that(name in f"{getattr(said, 'name', '')} {said}", f"the reason names no `{name}`: {said}")

    # Refused by the pool: the limit that sudo has set is not over for Bob.
    weights = calls.SubtensorModule.set_weights(netuid=1, dests=[2], weights=[1], version_key=0)
    refused("RateLimit", weights, wallet("Bob"), signer="hotkey")
    stake = calls.SubtensorModule.add_stake(hotkey=key("//Stranger"), netuid=1, amount_staked=rao("1"))
    refused("HotKeyAccountNotExists", stake, wallet("Bob"))
    refused("NotSubnetOwner", calls.SubtensorModule.start_call(netuid=3), wallet("Bob"))


@impossible(
    "register by intent",
    why="the SDK shields registrations: the encrypted pool needs block authors that share a rotating key",
    error="MEV Shield NextKey not available",
)
def _(s: State) -> None:
    s.chain.execute(bt.BurnedRegister(netuid=1, hotkey_ss58=key("//Eve//third")), wallet("Eve")).raise_for_failure()


@impossible(
    "MEV-shielded extrinsic",
    why="the encrypted pool of the real network needs block authors that share a rotating key",
    error="(?i)shield|NextKey",
)
def _(s: State) -> None:
    s.chain.submit_shielded(bt.Transfer(dest_ss58=key("//Xerxes"), amount_tao=1), wallet("Eve"))


if __name__ == "__main__":
    run_all(State())
