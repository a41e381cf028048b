#!/usr/bin/env python3
"""Schemathesis against a real sidecar beside a development chain: whatever it makes of the description of the API, the sidecar
answers as described. Over TCP it is asked what the network may ask, and over the unix socket what only the pod may: a
signer that holds its lease answers there, and what passes it goes to the chain. Run by `.ci/test` with the Python that
Schemathesis is installed for.

`MYCELIUM_DEVCHAIN` and `MYCELIUM_SIDECAR` name the programs, `SEED` repeats a run, `EXAMPLES` makes it longer.
"""

import contextlib
import json
import os
import select
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

# Requests of one operation in each phase. Three times as many find nothing more, and take three times as long.
EXAMPLES = os.environ.get("EXAMPLES", "40")
# The run through each door, should a machine be slow.
DEADLINE_S = 180
# Name of the unix socket in the folder of a run.
SOCKET = "sidecar.sock"
# Its answer has no end; tests of the sidecar watch it.
ENDLESS = ["/v1/watch"]
# Operations with this tag are refused over TCP and served on the socket. Every other is served on both, and asked over TCP.
POD_ONLY = "pod"
# The public development key //Alice, which has a neuron, stake and so a permit: its extrinsics are taken.
ALICE = "0xe5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a"
# What is behind a rate limit is to be reached: tests of the sidecar reach the limits themselves.
UNLIMITED = {"burst": 1_000_000, "every_s": 0.001}
# What has to have been signed in the end: what never gets past a refusal finds nothing.
SIGNED = [
    'mycelium_sidecar_signatures_total{kind="message",result="signed"}',
    'mycelium_sidecar_signatures_total{kind="request",result="signed"}',
    'mycelium_sidecar_signatures_total{kind="extrinsic",result="permitted"}',
]
# Schemathesis holds a connection for each worker. A connection that says nothing for so long is one that hangs.
CONNECTIONS_MAX = 8
IDLE_S = 60
# Nothing here is behind a login, and nothing is created that could be used after it was deleted. What is positive to a
# schema is not always positive to the chain: an address has a checksum, which no pattern can say.
CHECKS_OFF = "ignored_auth,use_after_free,ensure_resource_availability,object_level_authorization,positive_data_acceptance"


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def wait_for(what: str, ready: Callable[[], bool], processes: list[subprocess.Popen[bytes]]) -> None:
    end = time.monotonic() + 60
    while True:
        why = "not yet"
        try:
            if ready():
                return
        except (urllib.error.URLError, OSError) as error:
            why = str(error)
        ended = [process.args for process in processes if process.poll() is not None]
        if ended or time.monotonic() > end:
            sys.exit(f"{what} is not ready ({why}); ended: {ended}")
        time.sleep(0.1)


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read()


class Forwarder(socketserver.ThreadingTCPServer):
    """A port of the loopback that is the unix socket for clients that speak TCP only."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.slots = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__(("127.0.0.1", 0), Forwarded)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Forwarded(socketserver.BaseRequestHandler):
    server: Forwarder

    def handle(self) -> None:
        if not self.server.slots.acquire(blocking=False):
            return
        # An end that breaks off is what fuzzing is about; whoever asked sees it as well.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as inner:
            inner.connect(self.server.path)
            self.pump({self.request: inner, inner: self.request})
        self.server.slots.release()

    def pump(self, open_ends: dict[socket.socket, socket.socket]) -> None:
        while open_ends:
            readable, _, _ = select.select(list(open_ends), [], [], IDLE_S)
            if not readable:
                return
            for end in readable:
                if data := end.recv(65536):
                    open_ends[end].sendall(data)
                else:
                    open_ends.pop(end).shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def forwarded(path: Path) -> Iterator[str]:
    with Forwarder(path) as forwarder:
        threading.Thread(target=forwarder.serve_forever).start()
        try:
            yield forwarder.url
        finally:
            forwarder.shutdown()


def genesis() -> str:
    neurons = [
        {"hotkey": "//Alice", "coldkey": "//Bob", "stake": "5000", "weights": [[1, 65535], [2, 100]]},
        {"hotkey": "//Miner", "coldkey": "//Bob", "axon": {"ip": "127.0.0.1", "port": 8091}},
        {"hotkey": "//Other", "coldkey": "//Ferdie", "stake": "10"},
    ]
    return json.dumps({"subnets": [{"netuid": 1, "hyperparameters": {"tempo": 10}, "neurons": neurons}]})


def start(folder: Path, processes: list[subprocess.Popen[bytes]]) -> str:
    (folder / "genesis.json").write_text(genesis())
    chain, http = free_address(), free_address()
    network = {
        "network": "test",
        "endpoints": [f"ws://{chain}"],
        "netuid": 1,
        "genesis_hash": None,
        "local": True,
        "minimum_stake": "1000",
        "verification_ttl_s": 60,
        "group": None,
    }
    (folder / "network.json").write_text(json.dumps(network))
    (folder / "hotkey").write_text(ALICE)
    rates = dict.fromkeys(["message", "weights", "axon", "commitment"], UNLIMITED)
    (folder / "policy.json").write_text(json.dumps({"rates": rates}))
    devchain = [os.environ["MYCELIUM_DEVCHAIN"], "--listen", chain, "--block-time", "250ms", "--genesis"]
    with (folder / "chain.log").open("wb") as log:
        processes.append(subprocess.Popen([*devchain, folder / "genesis.json"], stdout=log, stderr=log))
    sidecar = [os.environ["MYCELIUM_SIDECAR"], "run", "--kind", "miner", "--listen", http, "--log", "warn"]
    files = {"--config": "network.json", "--hotkey-file": "hotkey", "--signer-policy": "policy.json"}
    files |= {"--socket": SOCKET, "--data-dir": "data"}
    for flag, name in files.items():
        sidecar += [flag, str(folder / name)]
    processes.append(subprocess.Popen(sidecar))
    wait_for("the sidecar", lambda: bool(get(f"http://{http}/readyz")), processes)
    return f"http://{http}"


def run(url: str, choice: str, report: Path) -> int:
    command = [str(Path(sys.executable).parent / "st"), "run", f"{url}/v1/openapi.json", "--url", url]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES, "--max-failures", "20"]
    command += ["--checks", "all", "--exclude-checks", CHECKS_OFF, "--continue-on-failure", "--warnings", "off"]
    command += ["--seed", os.environ.get("SEED", "1"), "--request-timeout", "20", "--workers", "2"]
    command += ["--report", "junit", "--report-junit-path", str(report)]
    command += [choice, POD_ONLY]
    for path in ENDLESS:
        command += ["--exclude-path", path]
    try:
        return subprocess.run(command, cwd=report.parent, timeout=DEADLINE_S).returncode
    except subprocess.TimeoutExpired:
        print(f"not done within {DEADLINE_S} s")
        return 1


def ask(folder: Path, processes: list[subprocess.Popen[bytes]]) -> bool:
    """Through one door after the other; whether all was well."""
    by_tcp = start(folder, processes)
    codes = [run(by_tcp, "--exclude-tag", folder / "tcp.xml")]
    with forwarded(folder / SOCKET) as by_socket:
        wait_for("the signer", lambda: json.loads(get(f"{by_socket}/v1/signer"))["state"] == "held", processes)
        codes.append(run(by_socket, "--include-tag", folder / "socket.xml"))
        held = json.loads(get(f"{by_socket}/v1/signer"))
    if held["state"] != "held":
        print(f"the signer stopped signing: {held}")
    metrics = get(f"{by_tcp}/metrics").decode().splitlines()
    unsigned = [kind for kind in SIGNED if not any(line.startswith(kind) and not line.endswith(" 0") for line in metrics)]
    if unsigned:
        print(f"nothing that was asked got as far as {unsigned}")
    ended = [process.args for process in processes if process.poll() is not None]
    if ended:
        print(f"ended while it was asked: {ended}")
    return not any(codes) and held["state"] == "held" and not unsigned and not ended


def main() -> int:
    begin = time.monotonic()
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            well = ask(folder, processes)
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait()
        reports = [folder / "tcp.xml", folder / "socket.xml"]
        cases = [[*ElementTree.parse(report).iter("testcase")] if report.exists() else [] for report in reports]
    failed = [case for case in sum(cases, []) if case.find("failure") is not None or case.find("error") is not None]
    # No case through one of the doors is a failure as well.
    bad = bool(failed) or not well or not all(cases)
    passed = sum(map(len, cases)) - len(failed)
    print(f"{passed} passed, {max(len(failed), int(bad))} failed in {time.monotonic() - begin:.1f}s")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
