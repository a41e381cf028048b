"""The examples as the pods run them."""

import json
import os
import queue
import signal
import socket as sockets
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import ALICE, CHARLIE, CHARLIES_AXON, DEADLINE_S, NETUID, Devchain, SidecarProcess, free_port, until

EXAMPLES = Path(__file__).parent.parent / "examples"


class Example:
    """An example that runs, and the lines it printed that nobody looked at yet."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)

    def wait_for(self, found: Callable[[str], bool]) -> None:
        """Look at lines until one is found."""
        seen = []
        deadline = time.monotonic() + DEADLINE_S
        while (left := deadline - time.monotonic()) > 0:
            try:
                seen.append(self.lines.get(timeout=left))
            except queue.Empty:
                break
            if found(seen[-1]):
                return
        raise AssertionError(f"not within {DEADLINE_S} s in the last lines: {seen[-20:]}")


@contextmanager
def running(name: str, socket: Path, **environment: str) -> Iterator[Example]:
    """Run an example until the end of the block; then SIGTERM ends it in good order."""
    process = subprocess.Popen(
        [sys.executable, "-u", EXAMPLES / name],
        env={**os.environ, "MYCELIUM_SOCKET": str(socket), **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    example = Example(process)
    try:
        yield example
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()
        example.reader.join()


def test_the_validator_prints_scores_and_survives_a_restart_of_its_sidecar(
    sidecar_for: Callable[[str], SidecarProcess], chain: Devchain
) -> None:
    sidecar = sidecar_for(chain.url)
    with running("validator.py", sidecar.socket, INTERVAL_S="0.1") as validator:

        def has_scored_charlie(line: str, answers: str = "no") -> bool:
            words = line.split()
            return len(words) == 5 and words[1] == CHARLIE and words[3] == answers and float(words[4]) > 0

        with sockets.create_server(CHARLIES_AXON):
            validator.wait_for(lambda line: has_scored_charlie(line, "yes"))
        validator.wait_for(has_scored_charlie)
        sidecar.stop()
        validator.wait_for(lambda line: line.startswith("no scores this time: the sidecar"))
        sidecar.start()
        validator.wait_for(has_scored_charlie)


def test_the_validator_says_that_the_chain_is_down_and_goes_on(
    sidecar_for: Callable[[str], SidecarProcess], tmp_path: Path
) -> None:
    folder = tmp_path / "chain"
    folder.mkdir()
    with Devchain(folder) as own:
        sidecar = sidecar_for(own.url)
        with running("validator.py", sidecar.socket, INTERVAL_S="0.1") as validator:
            validator.wait_for(lambda line: line.startswith("block "))
            own.stop()
            validator.wait_for(lambda line: line.startswith("no scores while the chain is not read: EndpointDown"))
            own.start()
            validator.wait_for(lambda line: line.startswith("block "))


def test_the_miner_serves_its_health(sidecar_for: Callable[[str], SidecarProcess], chain: Devchain) -> None:
    sidecar = sidecar_for(chain.url)
    port = free_port()
    with running("miner.py", sidecar.socket, PORT=str(port)) as miner:
        miner.wait_for(lambda line: line.startswith("serving on port"))
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
