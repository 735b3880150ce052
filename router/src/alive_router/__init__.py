"""The router: picks a provider for each turn and relays its events."""
