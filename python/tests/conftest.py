"""Real processes: a development chain and sidecars, each on free ports and in a folder of its own."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from processes import Devchain, SidecarProcess, network_config


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devchain]:
    """A chain that goes on through all tests."""
    with Devchain(tmp_path_factory.mktemp("chain")) as chain:
        yield chain


@pytest.fixture(scope="session")
def socket(chain: Devchain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a sidecar that follows the chain through all tests."""
    with SidecarProcess(tmp_path_factory.mktemp("sidecar"), network_config(chain.url)) as sidecar:
        sidecar.wait_for_chain()
        yield sidecar.socket


@pytest.fixture(autouse=True)
def outside_of_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that are inside say so."""
    monkeypatch.delenv("MYCELIUM_SOCKET", raising=False)


@pytest.fixture
def in_pod(socket: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The process is in the pod of the sidecar that follows the chain."""
    monkeypatch.setenv("MYCELIUM_SOCKET", os.fspath(socket))
    return socket


@pytest.fixture
def sidecar_for(tmp_path: Path) -> Iterator[Callable[[str], SidecarProcess]]:
    """Start a sidecar of the test's own for a chain endpoint."""
    started: list[SidecarProcess] = []

    def start(url: str) -> SidecarProcess:
        sidecar = SidecarProcess(tmp_path, network_config(url))
        started.append(sidecar)
        sidecar.start()
        return sidecar

    yield start
    for sidecar in started:
        sidecar.stop()
