"""The vendors' keys are in one place: the key gateway. Services and agents hold tokens that end with their turn."""
