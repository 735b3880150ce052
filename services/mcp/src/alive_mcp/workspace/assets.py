"""Assets that websites share: those that come with the package, and those of the operator's directory."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from alive_mcp.context import Context
from alive_mcp.errors import Refused
from alive_mcp.workspace.paths import Tree

_OWN = Path(__file__).with_name("assets")
_ASSET_BYTES = 20 << 20
_NOTHING = frozenset[str]()


def copy_shared_asset(
    context: Context,
    asset: Annotated[
        str,
        Field(
            description="Its name, for example 'images/placeholder'. A wrong name is answered with all there are.",
            pattern=r"^[a-z0-9-]+(/[a-z0-9-]+)*$",
            max_length=200,
        ),
    ],
    dest: Annotated[
        str | None,
        Field(
            description="The directory to copy it to; unset means 'public/' and its name.",
            min_length=1,
            max_length=4096,
        ),
    ] = None,
) -> str:
    """Copy a font, an image or another shared asset into the workspace, files of the same names replaced."""
    source = next((place / asset for place in _places(context) if (place / asset).is_dir()), None)
    if source is None:
        raise Refused(f"There is no asset {asset!r}. There are: {', '.join(_names(context)) or 'none'}.")
    shelf, workspace = Tree(source), Tree(context.workspace)
    target = "/".join(workspace.parts(dest or f"public/{asset}"))
    names = [name for name, _ in shelf.walk("", skipped=_NOTHING)]
    for name in names:
        workspace.write(f"{target}/{name}", shelf.read(name, most=_ASSET_BYTES))
    return f"Copied to {target}: {', '.join(names)}."


def _places(context: Context) -> list[Path]:
    return [_OWN, *([context.assets] if context.assets else [])]


def _names(context: Context) -> list[str]:
    """Return every directory that holds files."""
    found = [(place, path.parent) for place in _places(context) for path in place.rglob("*") if path.is_file()]
    return sorted({str(directory.relative_to(place)) for place, directory in found})
