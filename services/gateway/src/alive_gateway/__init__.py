"""The key gateway: Envoy, and the configuration it is given."""
