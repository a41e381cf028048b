"""btcli of bittensor 11: every `btcli query` command, and a transfer.

The program is loaded once and forked for each command line: loading takes longer than most commands do.
"""

from __future__ import annotations

import functools
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import bittensor as bt
import typer
from bittensor import reads
from bittensor.cli import main as cli
from bittensor.sp_core import Keypair
from bittensor.wallet import Wallet

from operations import FailedError, equal, facts, impossible, operation, rao, run_all, that, url

# Command lines that run at a time; the machine's cores are shared with other clients.
AT_ONCE = 3

# A command takes a second; one that fails in the middle of several requests at a time may wait for ever.
COMMAND_S = 12

# The endpoint, and no public ones to fall back to.
os.environ.update(BT_NETWORK=url(), BT_FALLBACK_ENDPOINTS="none", BT_ARCHIVE_ENDPOINTS="none", COLUMNS="200")

Check = Callable[[Any], object]


@dataclass(frozen=True)
class DevWallet:
    """What the SDK takes as a wallet: the coldkey of a development account."""

    coldkey: Any

    @property
    def coldkeypub(self) -> Any:
        """The coldkey again: there is no secret to keep."""
        return self.coldkey

    @property
    def hotkey(self) -> Any:
        """Nobody signs with it here."""
        return self.coldkey


@dataclass
class State:
    """What the operations share."""

    facts: dict[str, Any] = field(default_factory=facts)
    # Reads that an operation has asked for.
    asked: set[str] = field(default_factory=set)


def key(uri: str) -> str:
    """Address of a key URI."""
    return str(Keypair.create_from_uri(uri).ss58_address)


# Building the tree of commands takes a second, as long as everything else that a command does; it is built once.
typer.main.get_command = functools.cache(typer.main.get_command)
typer.main.get_command(cli.app)

HOT, COLD = key("//Alice//hot"), key("//Alice")
# Values of options that most reads share.
OPTIONS = {"netuid": "1", "uid": "0", "coldkey": COLD, "hotkey": HOT, "coldkeys": COLD, "hotkeys": HOT}


def tao(text: str) -> int:
    """An amount as the program prints it, in rao: thousands are set apart, and a unit is before or behind."""
    return rao("".join(letter for letter in text if letter in "0123456789."))


@dataclass(frozen=True)
class Running:
    """A forked copy of this process that does one thing and ends."""

    title: str
    child: int
    pipe: int

    def output(self) -> str:
        """What it printed; fails if it did not end well."""
        deadline, printed = time.monotonic() + COMMAND_S, b""
        while True:
            ready = select.select([self.pipe], [], [], max(0.0, deadline - time.monotonic()))[0]
            if not ready:
                self.kill()
                raise FailedError(f"{self.title}: no answer within {COMMAND_S} s")
            part = os.read(self.pipe, 1 << 16)
            if not part:
                break
            printed += part
        os.close(self.pipe)
        out = printed.decode()
        status = os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])
        if status:
            raise FailedError(f"{self.title} ended with {status}: {' '.join(out.split())[-300:]}")
        return out

    def kill(self) -> None:
        """Ends it."""
        os.close(self.pipe)
        os.kill(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)


def start(title: str, run: Callable[[], object]) -> Running:
    """Does something in a forked copy of this process."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return Running(title, child, read)
    status = 1
    try:
        os.dup2(write, 1)
        os.dup2(write, 2)
        run()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException as error:  # noqa: BLE001 - the parent reads it
        print(repr(error))
    finally:
        sys.stdout.flush()
        os._exit(status)


def start_btcli(*words: str) -> Running:
    """Runs a command line."""

    def run() -> None:
        sys.argv = ["btcli", *words]
        cli.main()

    return start(f"btcli {' '.join(words)}", run)


def btcli(*words: str) -> str:
    """Runs a command line; what it printed."""
    return start_btcli(*words).output()


def command(name: str, given: dict[str, str]) -> list[str]:
    """The command line of a read."""
    spec = next(read for read in reads.list_reads() if read["name"] == name)
    options = [option.replace("_ss58", "") for option in spec["params"]]
    values = {**OPTIONS, **given}
    words = [word for option in options for word in (f"--{option.replace('_', '-')}", values[option])]
    return ["query", name.replace("_", "-"), *words, "--json"]


def ask(s: State, wanted: dict[str, Check | None], **given: str) -> None:
    """Runs several reads, some at a time, and checks each answer."""
    s.asked.update(wanted)
    waiting = list(wanted)
    running: list[tuple[str, Running]] = []
    problems = []
    try:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                name = waiting.pop(0)
                running.append((name, start_btcli(*command(name, given))))
            name, process = running.pop(0)
            try:
                got = json.loads(process.output())
                check = wanted[name]
                if check and not check(got):
                    problems.append(f"{name}: unexpected {json.dumps(got)[:200]}")
            except (FailedError, ValueError, KeyError, TypeError) as error:
                problems.append(f"{name}: {error}")
    finally:
        # Whatever hangs must not outlive the operation.
        for _name, process in running:
            process.kill()
    that(not problems, "; ".join(problems))


@operation("balance")
def _(s: State) -> None:
    checks: dict[str, Check | None] = {
        "balance": lambda got: tao(got) == rao("2.5"),
        "balances": lambda got: tao(got[key("//Zoe")]) == rao("2.5"),
        "coldkey_swap_announcement": lambda got: got is None,
        "existential_deposit": lambda got: tao(got) == 500,
        "proxies": lambda got: got["proxies"] == [],
    }
    ask(s, checks, coldkey=key("//Zoe"), coldkeys=key("//Zoe"))


@operation("blocks and epochs")
def _(s: State) -> None:
    tempo = s.facts["subnets"][0]["hyperparameters"]["tempo"]
    checks: dict[str, Check | None] = {
        "block_info": lambda got: got["number"] == 1,
        "block_time": lambda got: got == 0.25,
        "is_fast_blocks": lambda got: got is True,
        "timestamp": lambda got: got["block"] > 0,
        "blocks_since_last_step": lambda got: 0 <= got <= tempo,
        "blocks_since_last_update": lambda got: got >= 0,
        "blocks_until_next_epoch": lambda got: 0 <= got <= tempo,
        "epoch_status": lambda got: got["tempo"] == tempo,
        "next_epoch_start_block": lambda got: got % tempo == 0,
    }
    ask(s, checks, block="1")


@operation("hyperparameters")
def _(s: State) -> None:
    told = s.facts["subnets"][0]["hyperparameters"]
    names = ("tempo", "immunity_period", "kappa", "min_allowed_weights")
    checks: dict[str, Check | None] = {
        "difficulty": None,
        "immunity_period": lambda got: got == told["immunity_period"],
        "max_weight_limit": lambda got: got == 65535,
        "min_allowed_weights": lambda got: got == told["min_allowed_weights"],
        "reveal_period": lambda got: got == 1,
        "subnet_emission_enabled": lambda got: got == 0,
        "weights_rate_limit": lambda got: got == 0,
        "tx_rate_limit": None,
        "commit_reveal_enabled": lambda got: got is False,
        "subnet_hyperparameters": lambda got: all(got[name] == told[name] for name in names),
    }
    ask(s, checks)


@operation("subnets")
def _(s: State) -> None:
    neurons = s.facts["subnets"][0]["neurons"]
    hotkeys = [key(neuron["hotkey"]) for neuron in neurons]
    checks: dict[str, Check | None] = {
        "burn": lambda got: 0 < tao(got) <= rao("0.25"),
        "mechanism_count": lambda got: got == 1,
        "mechanism_emission_split": lambda got: got == [],
        "metagraph": lambda got: got["hotkeys"] == hotkeys,
        "subnet": lambda got: got["neuron_count"] == len(neurons),
        "subnet_identity": lambda got: got is None,
        "subnet_names": None,
        "subnet_registration_cost": lambda got: tao(got) > 0,
        "subnet_start_schedule": lambda got: got["netuid"] == 1,
        "subnet_tao_flows": None,
        "subnets": lambda got: [subnet["netuid"] for subnet in got] == [0, 1, 2],
        "token_symbols": None,
    }
    ask(s, checks)


@operation("neurons")
def _(s: State) -> None:
    checks: dict[str, Check | None] = {
        "associated_evm_key": lambda got: got is None,
        "hotkey_owner": lambda got: got == COLD,
        "netuids_for_hotkey": lambda got: sorted(got) == [1, 2],
        "owned_hotkeys": lambda got: got == [HOT],
        "uid": lambda got: got == 0,
    }
    s.asked.add("neurons")
    ask(s, checks)
    got = json.loads(btcli("query", "neurons", "--netuid", "1", "--json"))
    wanted = [key(neuron["hotkey"]) for neuron in s.facts["subnets"][0]["neurons"]]
    equal("neurons", [neuron["hotkey"] for neuron in got], wanted)


@operation("weights and bonds")
def _(s: State) -> None:
    checks: dict[str, Check | None] = {
        "bonds": None,
        "weights": lambda got: abs(got["0"]["2"] - 2 / 3) < 1e-6,
        "timelocked_weight_commits": lambda got: not got,
    }
    ask(s, checks, mechid="0")


@operation("stake")
def _(s: State) -> None:
    checks: dict[str, Check | None] = {
        "stake": lambda got: tao(got) == rao("1000.5"),
        "stake_availability": lambda got: tao(got["available"]) == rao("1000.5"),
        "stake_availability_for_coldkey": lambda got: tao(got[0]["available"]) == rao("1000.5"),
        "stake_for_coldkey": lambda got: [position["netuid"] for position in got] == [1, 2],
        "stake_for_coldkeys": lambda got: len(got[COLD]) == 2,
        "stake_value_for_coldkey": lambda got: len(got["positions"]) == 2,
        "stake_value_for_coldkeys": lambda got: len(got[COLD]["positions"]) == 2,
        "staking_hotkeys": lambda got: got == [HOT],
        "total_alpha_staked": lambda got: tao(got) == rao("1503.5"),
        "auto_stake": lambda got: got is None,
        "auto_stake_all": lambda got: not got,
    }
    ask(s, checks, netuids="1")


@operation("prices")
def _(s: State) -> None:
    checks: dict[str, Check | None] = {
        "alpha_price": lambda got: got["tao_per_alpha"] == 1.0,
        "alpha_prices": lambda got: got["1"] == 1.0,
        "quote_stake": lambda got: tao(got["alpha"]) == rao("2"),
        "quote_unstake": lambda got: tao(got["tao"]) == rao("2"),
    }
    ask(s, checks, amount_tao="2", amount_alpha="2")


@operation("delegates")
def _(s: State) -> None:
    checks: dict[str, Check | None] = {
        "childkey_threshold_suspended": lambda got: got is False,
        "children": lambda got: got == [],
        "delegate": lambda got: got is None,
        "delegate_take": lambda got: got["take_u16"] == 11796,
        "delegated": None,
        # A hotkey is a delegate from the moment that somebody else stakes to it.
        "delegates": lambda got: got == [],
        "is_delegate": lambda got: got is False,
        "parents": lambda got: got == [],
        "pending_children": lambda got: got["children"] == [],
    }
    ask(s, checks)


@operation("commitment")
def _(s: State) -> None:
    checks: dict[str, Check | None] = {
        "commitment": lambda got: got is None,
        "commitments": lambda got: got == [],
        "hotkey_identities": lambda got: got == {},
        "identity": lambda got: got is None,
        "revealed_commitment": lambda got: got is None,
    }
    ask(s, checks)


@operation("locks and collateral")
def _(s: State) -> None:
    checks: dict[str, Check | None] = {
        "coldkey_lock": lambda got: got is None,
        "hotkey_conviction": None,
        "locks_for_coldkey": lambda got: not got,
        "locks_for_hotkey": lambda got: not got,
        "most_convicted_hotkey": lambda got: got is None,
        "collateral_policy": lambda got: got["netuid"] == 1,
        "miner_collateral": lambda got: got is None,
        "subnet_collateral": lambda got: got == [],
    }
    ask(s, checks)


@impossible(
    "accepts-locked-alpha",
    why="the development chain keeps no locks of stake",
    error="AccountFlags not found",
)
def _(s: State) -> None:
    ask(s, {"accepts_locked_alpha": None})


@impossible(
    "subnet-convictions",
    why="the development chain keeps no locks of stake",
    error="not found|no answer",
)
def _(s: State) -> None:
    ask(s, {"subnet_convictions": None})


@impossible("multisig", why="the development chain has no multisigs", error="Multisig.Multisigs not found")
def _(s: State) -> None:
    ask(s, {"multisig": None}, account=key("//Zoe"), call_hash="0x" + "00" * 32)


@operation("leases and crowdloans")
def _(s: State) -> None:
    checks: dict[str, Check | None] = {
        "crowdloan": lambda got: got is None,
        "crowdloan_contributors": lambda got: got == [],
        "crowdloans": lambda got: got == [],
        "lease": lambda got: got is None,
        "leases": lambda got: not got,
    }
    ask(s, checks, crowdloan_id="0", lease_id="0")


@impossible(
    "root baskets",
    why="the development chain keeps no baskets of root dividends",
    error="BetaBasketRuntimeApi",
)
def _(s: State) -> None:
    s.asked.add("root_claim_threshold")
    names = [read["name"] for read in reads.list_reads() if "basket" in read["name"]]
    ask(s, dict.fromkeys(names))


@impossible(
    "key of the encrypted pool",
    why="the encrypted pool of the real network needs block authors that share a rotating key",
    error="NextKey|unexpected null",
)
def _(s: State) -> None:
    ask(s, {"mev_shield_next_key": lambda got: isinstance(got, str) or that(got, "unexpected null")})


@operation("no read is left out")
def _(s: State) -> None:
    equal("reads that no operation asks for", sorted({read["name"] for read in reads.list_reads()} - s.asked), [])


@operation("transfer")
def _(_: State) -> None:
    # A wallet on disk, made by the program's own library, and paid by the SDK.
    Wallet("bank").create_new_coldkey(use_password=False, suppress=True)
    address, receiver = str(Wallet("bank").coldkeypub.ss58_address), key("//Xerxes")
    ferdie = Keypair.create_from_uri("//Ferdie")

    def pay() -> None:
        chain = bt.Subtensor(url(), fallback_endpoints=[], archive_endpoints=[])
        call = bt.calls.Balances.transfer_keep_alive(dest=address, value=rao("5"))
        chain.submit_call(call, DevWallet(ferdie)).raise_for_failure()

    start("paying the wallet", pay).output()
    words = ["tx", "transfer", "--wallet", "bank", "--dest", receiver, "--amount-tao", "1.25", "--yes", "--json"]
    btcli(*words)
    equal("received", tao(json.loads(btcli("query", "balance", "--coldkey", receiver, "--json"))), rao("1.25"))
    left = tao(json.loads(btcli("query", "balance", "--coldkey", address, "--json")))
    that(rao("3.74") < left < rao("3.75"), f"left are {left} rao")


if __name__ == "__main__":
    run_all(State())
