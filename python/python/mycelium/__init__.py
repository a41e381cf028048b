"""Validators and miners of Bittensor-style subnets: the chain, and the sidecar beside them."""

from mycelium._native import __version__
from mycelium.chain.interface import SubstrateInterface

__all__ = ["SubstrateInterface", "__version__"]
