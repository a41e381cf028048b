"""Starts and stops the programs that the tests speak to."""

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import pytest
from typing_extensions import Self

from mycelium.errors import SidecarError
from mycelium.sidecar import Sidecar

T = TypeVar("T")

# Seconds until something that was started must be there. Level-triggered: a test goes on as soon as it is.
DEADLINE_S = 60.0

NETUID = 1
MINIMUM_STAKE = 1000
# Hotkeys of //Alice to //Ferdie; two validators, three miners, and one that is not registered.
ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
BOB = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
CHARLIE = "5FLSigC9HGRKVhB9FiEo4Y3koPsNmBmLJbpXg2mp1hXcS59Y"
DAVE = "5DAAnrj7VHTznn2AWBemMuyBwZWs6FNFjdyVXUeYum3PTXFy"
EVE = "5HGjWAeFDfFCWPsjFQdVV2Msvz2XtMktvgocEZcCj68kUMaw"
FERDIE = "5CiPPseXPECbkjWCa6MnjNokrgYjMqmKndv2rSnekmSK2DjL"
ALICE_SEED = "0xe5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Axons that no packet leaves the machine for: a loopback address, and one that needs an interface to be named.
CHARLIES_AXON = ("127.1.2.3", free_port())
DAVES_AXON = ("fe80::1", 65535)

_GENESIS: dict[str, Any] = {
    "subnets": [
        {
            "netuid": NETUID,
            # Nobody sets weights again, and those of the file must count for as long as a slow machine takes.
            "hyperparameters": {"tempo": 10, "max_validators": 2, "activity_cutoff_factor_milli": 4_000_000},
            "neurons": [
                {"hotkey": ALICE, "coldkey": "//Alice", "stake": "50000.000000007", "root_stake": "12.5"}
                | {"weights": [[2, 60000], [3, 30000]]},
                {"hotkey": BOB, "coldkey": "//Bob", "stake": "20000", "weights": [[2, 50000], [3, 40000]]},
                {"hotkey": CHARLIE, "coldkey": "//Charlie", "axon": {"ip": CHARLIES_AXON[0], "port": CHARLIES_AXON[1]}},
                {"hotkey": DAVE, "coldkey": "//Dave"}
                | {"axon": {"ip": DAVES_AXON[0], "port": DAVES_AXON[1], "protocol": 1, "version": 7}},
                {"hotkey": EVE, "coldkey": "//Eve", "stake": "1"},
            ],
        },
        {"netuid": 2, "neurons": [{"hotkey": FERDIE, "coldkey": "//Ferdie"}]},
    ]
}


def until(what: str, probe: Callable[[], T | None]) -> T:
    """Ask until there is an answer."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if (answer := probe()) is not None:
            return answer
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {DEADLINE_S} s")


def program(variable: str, package: str) -> str:
    """Path of a program, from its variable."""
    path = os.environ.get(variable)
    if not path or not Path(path).is_file():
        pytest.exit(f"{variable}: `{path}` is no program: build it with `cargo build -p {package}` and name it", 2)
    return path


class _Process:
    """One program that is started and stopped, perhaps several times."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the program."""
        raise NotImplementedError

    def stop(self) -> None:
        """Kill it, as a machine that fails does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Devchain(_Process):
    """A chain with 250 ms blocks."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.listen = "127.0.0.1:0"
        self.genesis_hash = ""
        (folder / "genesis.json").write_text(json.dumps(_GENESIS))

    @property
    def url(self) -> str:
        """WebSocket address, the same after a restart."""
        return f"ws://{self.listen}"

    def start(self) -> None:
        """Start the chain and wait until it listens."""
        arguments = ["--listen", self.listen, "--block-time", "250ms", "--genesis", str(self.folder / "genesis.json")]
        arguments += ["--state-dir", str(self.folder / "state")]
        self.process = subprocess.Popen(
            [program("MYCELIUM_DEVCHAIN", "e2e-devchain"), *arguments], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            words = line.split()
            if line.startswith("endpoint"):
                self.listen = words[1].removeprefix("ws://")
            if line.startswith("genesis hash"):
                self.genesis_hash = words[2]
                break
        assert self.genesis_hash, "the chain did not start"
        # Read on, or the chain blocks when the pipe is full.
        threading.Thread(target=_drain, args=(self.process,), daemon=True).start()


def _drain(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    try:
        for _ in process.stdout:
            pass
    except ValueError:
        # Closed at the end of the test.
        return


def network_config(url: str) -> dict[str, Any]:
    """What the operator tells a sidecar of its Network."""
    config = {"network": "test", "endpoints": [url], "netuid": NETUID, "local": True, "group": None}
    return config | {"genesis_hash": None, "minimum_stake": str(MINIMUM_STAKE), "verification_ttl_s": 60}


class SidecarProcess(_Process):
    """The sidecar of the validator //Alice, in a folder that stands for its pod."""

    def __init__(self, folder: Path, network: dict[str, Any]) -> None:
        super().__init__()
        self.folder = folder
        self.socket = folder / "sidecar.sock"
        (folder / "network.json").write_text(json.dumps(network))
        (folder / "hotkey").write_text(json.dumps({"secretSeed": ALICE_SEED, "ss58Address": ALICE}))

    def start(self) -> None:
        """Start the sidecar and wait until its socket answers."""
        arguments = ["run", "--kind", "validator", "--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"]
        arguments += ["--config", str(self.folder / "network.json"), "--hotkey-file", str(self.folder / "hotkey")]
        arguments += ["--data-dir", str(self.folder / "data"), "--socket", str(self.socket), "--probe-interval-s", "0"]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [program("MYCELIUM_SIDECAR", "sidecar"), *arguments], stdout=log, stderr=log, text=True
            )
        until("the sidecar's socket", self._answers)

    def _answers(self) -> bool | None:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            Sidecar(self.socket).status()
        except SidecarError:
            return None
        return True

    def wait_for_chain(self) -> None:
        """Wait until the sidecar has read the chain."""
        until("a metagraph", lambda: Sidecar(self.socket).status().chain.synced or None)
