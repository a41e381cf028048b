"""Times one call of an SDK on a warm connection: `sdk.py ENVIRONMENT ENDPOINT NETUID RUNS` prints a list of milliseconds."""

from __future__ import annotations

import json
import sys
import time

import bittensor as bt


def main() -> None:
    """What people call to get the neurons of a subnet."""
    environment, endpoint, netuid, runs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    if environment == "bittensor-10":
        chain = bt.Subtensor(network=endpoint)
        call = lambda: chain.metagraph(netuid).hotkeys  # noqa: E731
    else:
        chain = bt.Subtensor(endpoint, fallback_endpoints=[], archive_endpoints=[])
        call = lambda: chain.read("neurons", netuid=netuid, lite=True)  # noqa: E731
    neurons = len(call())
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        assert len(call()) == neurons
        times.append((time.perf_counter() - started) * 1000)
    print(json.dumps(times))


if __name__ == "__main__":
    main()
