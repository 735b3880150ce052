"""Who may import whom. Members are found by folder: a new provider is held to this without an entry here."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
MEMBERS = sorted(path for path in CHECKOUT.glob("**/src/alive_*") if path.is_dir() and "build" not in path.parts)
VENDOR_SDKS = {"alive_claude": "claude_agent_sdk", "alive_codex": "openai_codex"}


def imports(package: Path) -> Iterator[tuple[str, str]]:
    """Yield each module of a package with each module it imports."""
    for path in package.rglob("*.py"):
        module = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((module, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield module, node.module or ""


def dependencies(package: Path) -> list[str]:
    """Return what a member declares that it needs."""
    declared: list[str] = tomllib.loads((package.parents[1] / "pyproject.toml").read_text())["project"]["dependencies"]
    return declared


def allowed(package: Path) -> set[str]:
    """Return the members that a member may import: itself, and the kit where it declares it."""
    return {package.name, "alive_kit"} if "alive-kit" in dependencies(package) else {package.name}


@pytest.mark.parametrize("package", MEMBERS, ids=lambda path: path.name)
def test_members_import_only_the_kit_and_the_contract(package: Path) -> None:
    """A service never imports a sibling, and the router no provider."""
    wrong = [
        (module, imported)
        for module, imported in imports(package)
        if imported.split(".")[0].startswith("alive_") and imported.split(".")[0] not in allowed(package)
    ]
    assert wrong == []


@pytest.mark.parametrize("package", MEMBERS, ids=lambda path: path.name)
def test_what_a_member_imports_it_declares(package: Path) -> None:
    """Vendor SDKs are named only in their provider's pyproject.toml."""
    declared = dependencies(package)
    for owner, sdk in VENDOR_SDKS.items():
        if owner == package.name:
            assert any(sdk.replace("_", "-") in dependency for dependency in declared)
        else:
            assert not any(imported.split(".")[0] == sdk for _, imported in imports(package))


def test_the_test_kit_is_not_part_of_any_service() -> None:
    """Only the stack, which runs the scripted model, and the kit itself know alive_kit.testing."""
    users = {
        package.name
        for package in MEMBERS
        for _, imported in imports(package)
        if imported.startswith("alive_kit.testing")
    }
    assert users <= {"alive_kit", "alive_stack"}


def test_the_router_names_no_provider() -> None:
    """Providers are configuration."""
    text = "".join(path.read_text() for path in (CHECKOUT / "router" / "src").rglob("*.py")).lower()
    assert not [name for name in ("claude", "codex", "anthropic", "openai") if name in text]


@pytest.mark.parametrize("package", MEMBERS, ids=lambda path: path.name)
def test_a_member_has_no_cycles_and_is_not_deep(package: Path) -> None:
    """At most nine modules lie on a path of imports."""
    edges: dict[str, set[str]] = {}
    for module, imported in imports(package):
        if imported.startswith(package.name) and ".testing" not in module:
            edges.setdefault(module, set()).add(imported)

    def depth(module: str, above: tuple[str, ...]) -> int:
        assert module not in above, f"a cycle: {' → '.join([*above, module])}"
        return 1 + max((depth(below, (*above, module)) for below in edges.get(module, ())), default=0)

    assert max((depth(module, ()) for module in edges), default=0) <= 9
