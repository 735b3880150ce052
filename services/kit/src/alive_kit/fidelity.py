"""How a provider says what becomes of everything that its vendor can say: rows of the table of `make fidelity`."""

from typing import TypeAlias

Row: TypeAlias = tuple[str, str, str]
"""A kind, its name in the vendor's words, and what becomes of it; empty where it is a notice for something unknown."""

UNASKED = "not asked for: "
"""How a row begins whose kind comes only to those who ask for something that the provider does not; then comes why."""
