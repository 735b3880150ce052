"""A provider without a vendor: an agent of our own, for the conformance suite and as an example of the port.

The agent's side (`program` and below) knows nothing of the kit's; both speak the contract's words over a pipe.
"""
