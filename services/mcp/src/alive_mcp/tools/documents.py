"""The documents that come with the package: workflows and super templates, a Markdown file each."""

from importlib import resources
from importlib.resources.abc import Traversable
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from alive_mcp.context import Context
from alive_mcp.errors import Refused

WorkflowType = Literal[
    "bug-debugging", "new-feature", "package-installation", "website-shippable-check", "functionality-check"
]

_TEMPLATE_BYTES = 500_000


class Workflow(BaseModel):
    """A way of working that has been written down."""

    workflow_type: str = Field(description="What get_workflow takes.")
    title: str = Field(description="What it is for.")


class Workflows(BaseModel):
    """Every workflow there is."""

    workflows: list[Workflow]


def list_workflows(context: Context) -> Workflows:
    """List the written-down ways of working: how to find a bug, add a feature, install a package, check a website.

    Call it before a larger piece of work, then get_workflow for the one that fits.
    """
    found = sorted(_directory("workflows").iterdir(), key=lambda file: file.name)
    return Workflows(
        workflows=[
            Workflow(workflow_type=file.name.removesuffix(".md"), title=_title(file.read_text(encoding="utf-8")))
            for file in found
            if file.name.endswith(".md")
        ]
    )


def get_workflow(
    context: Context,
    workflow_type: Annotated[WorkflowType, Field(description="Which one; list_workflows says what there is.")],
) -> str:
    """Return one written-down way of working, step by step. Follow it for the work it is for."""
    return _directory("workflows").joinpath(f"{workflow_type}.md").read_text(encoding="utf-8")


def get_alive_super_template(
    context: Context,
    id: Annotated[  # noqa: A002  # The name that front ends know.
        str, Field(description="The template's id, as the user gave it.", pattern="^[a-zA-Z0-9-]+$", max_length=100)
    ],
) -> str:
    """Return the instructions of a super template, all of it. Only when the user has written "Use template: <id>"."""
    templates = {file.name.removesuffix(".md"): file for file in _directory("templates").iterdir()}
    if id not in templates:
        raise Refused(f"There is no template {id!r}. There are: {', '.join(sorted(templates))}.")
    text = templates[id].read_text(encoding="utf-8")
    if len(text.encode()) > _TEMPLATE_BYTES:
        raise Refused(f"The template {id!r} is larger than {_TEMPLATE_BYTES} bytes.")
    return text


def _directory(name: str) -> Traversable:
    return resources.files("alive_mcp.tools") / name


def _title(text: str) -> str:
    return text.partition("\n")[0].lstrip("# ")
