"""A validator: scores the miners of its subnet from the metagraph that the sidecar holds, again and again."""

import os
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from mycelium.errors import MyceliumError
from mycelium.sidecar import Metagraph, Neuron, Sidecar

INTERVAL_S = float(os.environ.get("INTERVAL_S", "12"))


def answers(miner: Neuron) -> bool:
    """Whether something listens at the miner's axon."""
    if miner.axon is None:
        return False
    try:
        with socket.create_connection((miner.axon.ip, miner.axon.port), timeout=1):
            return True
    except OSError:
        return False


def print_scores(metagraph: Metagraph) -> None:
    """Score each miner: its incentive, halved while it does not answer."""
    # What a miner earns is stake, which may win it a permit: the permit alone does not tell who validates.
    miners = [neuron for neuron in metagraph.neurons if neuron.incentive > 0 or not neuron.validator_permit]
    with ThreadPoolExecutor(max_workers=16) as pool:
        answering = list(pool.map(answers, miners))
    print(f"block {metagraph.block}, last epoch at {metagraph.last_step}, {len(miners)} miners")
    print(f"{'uid':>5}  {'hotkey':<48}  {'incentive':>9}  {'answers':<7}  {'score':>6}")
    for miner, answer in zip(miners, answering, strict=True):
        score = miner.incentive * (1.0 if answer else 0.5)
        shown = "yes" if answer else "no"
        print(f"{miner.uid:>5}  {miner.hotkey:<48}  {miner.incentive:>9.4f}  {shown:<7}  {score:>6.4f}")


def main() -> None:
    """Go on until told to stop; neither a restart of the sidecar nor a chain that is down ends it."""
    # The first process of a container dies of SIGTERM only when it asks to.
    told_to_stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told_to_stop.set())
    sidecar = Sidecar()
    while not told_to_stop.is_set():
        try:
            chain = sidecar.status().chain
            if chain.synced:
                print_scores(sidecar.metagraph())
            else:
                print(f"no scores while the chain is not read: {chain.error}")
        except MyceliumError as error:
            print(f"no scores this time: {error}")
        sys.stdout.flush()
        told_to_stop.wait(INTERVAL_S)


if __name__ == "__main__":
    main()
