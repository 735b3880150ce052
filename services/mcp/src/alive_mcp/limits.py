"""How much of a result a model is shown."""

CHARACTERS = 8_000
LINES = 50
"""Unless a tool says otherwise."""


def cut(text: str, *, characters: int = CHARACTERS, lines: int = LINES, hint: str = "") -> str:
    """Return a text as far as its limits allow, with a last line that says what is left out."""
    all_lines = text.splitlines()
    kept = "\n".join(all_lines[:lines])[:characters]
    if len(all_lines) <= lines and len(kept) == len("\n".join(all_lines)):
        return text
    shown = f"{len(kept.splitlines())} of {len(all_lines)} lines, {len(kept)} of {len(text)} characters"
    return f"{kept}\n[cut: {shown} are shown{f'; {hint}' if hint else ''}]"


def plain(text: str) -> str:
    """Return a text that can be sent: what is no Unicode becomes question marks, control characters are named."""
    sendable = text.encode("utf-8", "replace").decode()
    return "".join(char if char >= " " or char in "\n\t" else f"\\x{ord(char):02x}" for char in sendable)
