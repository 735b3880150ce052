"""Starts agents in boxes. The only part of the system that runs as root, so it knows nothing but this."""
