"""What the chain says of a node, in the form that Fiber gave it: field names, order, types and units are Fiber's."""

from pydantic import BaseModel


class Node(BaseModel):
    """A neuron of a subnet.

    Stakes are in TAO, `incentive` and `vtrust` raw numbers from 0 to 65535, `last_updated` is a block, `ip` the address
    as a decimal integer (`"0"` where none was served).
    """

    hotkey: str
    coldkey: str
    node_id: int
    incentive: float
    netuid: int
    alpha_stake: float
    tao_stake: float
    stake: float
    trust: float
    vtrust: float
    last_updated: float
    ip: str
    ip_type: int
    port: int
    protocol: int = 4
