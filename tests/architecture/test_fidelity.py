"""An upgrade of a vendor's SDK that brings new kinds does not go unnoticed."""

from pathlib import Path

from alive_codex import events as codex
from alive_kit.testing.fidelity import table

CHECKOUT = Path(__file__).parents[2]


def test_the_table_names_everything_the_installed_sdks_can_say() -> None:
    """When this fails: make fidelity, and look at what came new."""
    assert (CHECKOUT / "docs" / "fidelity.md").read_text() == "\n".join(table()) + "\n"


def test_what_the_table_says_is_translated_is() -> None:
    """Each method has its translation, and each translation its line."""
    assert codex.TRANSLATED.keys() == codex._TRANSLATIONS.keys()
