"""The chain: connections, and the nodes of a subnet."""
