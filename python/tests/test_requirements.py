"""What an installation brings along, and what it must not."""

import re
from importlib.metadata import requires


def test_desearch_368_and_fiber_5_3_11_no_other_library_speaks_to_the_chain() -> None:
    names = {re.split(r"[^\w.-]", line)[0].lower() for line in requires("mycelium-bittensor") or []}
    # Whatever version of these a subnet's own code needs, this package stands in nobody's way.
    conflicting = {"scalecodec", "cyscale", "bt-decode", "substrate-interface", "async-substrate-interface"}
    assert not names & conflicting
    assert not {name for name in names if "websocket" in name}
    assert names == {"pydantic"}, "a new requirement is a decision"
