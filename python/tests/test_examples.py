"""The examples as the pods run them."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import ALICE, CHARLIE, NETUID, Devchain, SidecarProcess, free_port, until

EXAMPLES = Path(__file__).parent.parent / "examples"


@contextmanager
def running(name: str, socket: Path, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """Run an example until the end of the block; then SIGTERM ends it in good order."""
    process = subprocess.Popen(
        [sys.executable, "-u", EXAMPLES / name],
        env={**os.environ, "MYCELIUM_SOCKET": str(socket), **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()


def read_until(process: "subprocess.Popen[str]", found: Callable[[str], bool]) -> str:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if found(line):
            return line
    raise AssertionError(f"the example ended after {seen}")


def test_the_validator_prints_scores_and_survives_a_restart_of_its_sidecar(
    sidecar_for: Callable[[str], SidecarProcess], chain: Devchain
) -> None:
    sidecar = sidecar_for(chain.url)
    with running("validator.py", sidecar.socket, INTERVAL_S="0.1") as validator:

        def has_scored_charlie(line: str) -> bool:
            words = line.split()
            return len(words) == 5 and words[1] == CHARLIE and float(words[4]) > 0

        read_until(validator, has_scored_charlie)
        sidecar.stop()
        read_until(validator, lambda line: line.startswith("no scores this time: the sidecar"))
        sidecar.start()
        read_until(validator, has_scored_charlie)


def test_the_validator_says_that_the_chain_is_down_and_goes_on(
    sidecar_for: Callable[[str], SidecarProcess], tmp_path: Path
) -> None:
    folder = tmp_path / "chain"
    folder.mkdir()
    with Devchain(folder) as own:
        sidecar = sidecar_for(own.url)
        with running("validator.py", sidecar.socket, INTERVAL_S="0.1") as validator:
            read_until(validator, lambda line: line.startswith("block "))
            own.stop()
            read_until(validator, lambda line: line.startswith("no scores while the chain is not read: EndpointDown"))
            own.start()
            read_until(validator, lambda line: line.startswith("block "))


def test_the_miner_serves_its_health(sidecar_for: Callable[[str], SidecarProcess], chain: Devchain) -> None:
    sidecar = sidecar_for(chain.url)
    port = free_port()
    with running("miner.py", sidecar.socket, PORT=str(port)) as miner:
        read_until(miner, lambda line: line.startswith("serving on port"))
        sidecar.wait_for_chain()
        status, body = get(port, "/health")
        assert (status, body["hotkey"], body["netuid"], body["uid"]) == (200, ALICE, NETUID, 0)
        assert body["chain_synced"] is True
        assert get(port, "/other")[0] == 404
        sidecar.stop()
        status, body = get(port, "/health")
        assert status == 503
        assert str(sidecar.socket) in str(body["error"])
        sidecar.start()
        until("health", lambda: get(port, "/health")[0] == 200 or None)


def get(port: int, path: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
