"""Every error of this package. Wrong arguments are a `ValueError` instead."""

from mycelium._native import (
    ChainConnectionError,
    ChainError,
    MyceliumError,
    SidecarError,
    SidecarUnavailableError,
    SubnetNotFoundError,
)

__all__ = [
    "ChainConnectionError",
    "ChainError",
    "MyceliumError",
    "SidecarError",
    "SidecarUnavailableError",
    "SubnetNotFoundError",
]
