"""The edge: Envoy, which carries streams, and the configuration it is given."""
