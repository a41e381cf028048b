#!/usr/bin/env python3
"""Schemathesis against a real sidecar beside a development chain: whatever it makes of the description of the API, the sidecar
answers as described. Run by `.ci/test` with the Python that Schemathesis is installed for.

`MYCELIUM_DEVCHAIN` and `MYCELIUM_SIDECAR` name the programs, `SEED` repeats a run, `EXAMPLES` makes it longer.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from pathlib import Path

# Requests of one operation in each phase. Three times as many find nothing more, and take three times as long.
EXAMPLES = os.environ.get("EXAMPLES", "40")
# The whole run, should a machine be slow.
DEADLINE_S = 120
# Its answer has no end; tests of the sidecar watch it.
ENDLESS = ["/v1/watch"]
# Asked over TCP, where these are refused; tests of the sidecar ask them on the socket.
POD_ONLY = "pod"
# Nothing here is behind a login, and nothing is created that could be used after it was deleted. What is positive to a
# schema is not always positive to the chain: an address has a checksum, which no pattern can say.
CHECKS_OFF = "ignored_auth,use_after_free,ensure_resource_availability,object_level_authorization,positive_data_acceptance"


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def wait_for(url: str, processes: list[subprocess.Popen[bytes]]) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError) as error:
            ended = [process.args for process in processes if process.poll() is not None]
            if ended or time.monotonic() > end:
                sys.exit(f"{url} is not ready ({error}); ended: {ended}")
        time.sleep(0.1)


def genesis() -> str:
    neurons = [
        {"hotkey": "//Validator", "coldkey": "//Bob", "stake": "5000", "weights": [[1, 65535], [2, 100]]},
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
    (folder / "hotkey").write_text("0x" + "07" * 32)
    devchain = [os.environ["MYCELIUM_DEVCHAIN"], "--listen", chain, "--block-time", "250ms", "--genesis"]
    with (folder / "chain.log").open("wb") as log:
        processes.append(subprocess.Popen([*devchain, folder / "genesis.json"], stdout=log, stderr=log))
    sidecar = [os.environ["MYCELIUM_SIDECAR"], "run", "--kind", "miner", "--listen", http, "--log", "warn"]
    files = {"--config": "network.json", "--hotkey-file": "hotkey", "--socket": "sidecar.sock", "--data-dir": "data"}
    for flag, name in files.items():
        sidecar += [flag, str(folder / name)]
    processes.append(subprocess.Popen(sidecar))
    wait_for(f"http://{http}/readyz", processes)
    return f"http://{http}"


def run(url: str, report: Path) -> int:
    command = [str(Path(sys.executable).parent / "st"), "run", f"{url}/v1/openapi.json", "--url", url]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES, "--max-failures", "20"]
    command += ["--checks", "all", "--exclude-checks", CHECKS_OFF, "--continue-on-failure", "--warnings", "off"]
    command += ["--seed", os.environ.get("SEED", "1"), "--request-timeout", "20", "--workers", "2"]
    command += ["--report", "junit", "--report-junit-path", str(report)]
    command += ["--exclude-tag", POD_ONLY]
    for path in ENDLESS:
        command += ["--exclude-path", path]
    try:
        return subprocess.run(command, cwd=report.parent, timeout=DEADLINE_S).returncode
    except subprocess.TimeoutExpired:
        print(f"not done within {DEADLINE_S} s")
        return 1


def main() -> int:
    begin = time.monotonic()
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            code = run(start(folder, processes), folder / "report.xml")
            lives = all(process.poll() is None for process in processes)
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait()
        cases = list(ElementTree.parse(folder / "report.xml").iter("testcase")) if (folder / "report.xml").exists() else []
    failed = sum(1 for case in cases if case.find("failure") is not None or case.find("error") is not None)
    if not lives:
        print("a program ended while it was asked")
    bad = failed or code or not lives or not cases
    print(f"{len(cases) - failed} passed, {max(failed, 1 if bad else 0)} failed in {time.monotonic() - begin:.1f}s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
