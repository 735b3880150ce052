"""Questions to the user: asked through the client where it can, else returned for the product's front end to show."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from alive_mcp import product
from alive_mcp.client import Client
from alive_mcp.context import Context
from alive_mcp.errors import Refused

Properties: TypeAlias = dict[str, Mapping[str, Any]]

Reason: TypeAlias = Annotated[
    str | None, Field(description="Why you ask, in a sentence for the user.", max_length=1000)
]


class Shown(BaseModel):
    """What the front end shows; names there are in camel case."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Option(Shown):
    """One of the answers to choose from."""

    label: str = Field(description="The answer, in a few words.", min_length=1, max_length=100)
    description: str | None = Field(default=None, description="What it means.", max_length=300)


class Question(Shown):
    """A question with three answers to choose from."""

    id: str = Field(description="A short name, unique among the questions.", pattern="^[A-Za-z0-9_-]{1,64}$")
    question: str = Field(description="The question, in a sentence.", min_length=1, max_length=500)
    options: list[Option] = Field(description="Exactly three answers.", min_length=3, max_length=3)


class Template(Shown):
    """A template for a website."""

    template_id: str
    name: str
    description: str | None = None


class Site(Shown):
    """A website of the user's."""

    id: str
    hostname: str


class ClarificationQuestions(Shown):
    """Questions for the front end to show. What the user answers comes with their next message."""

    type: Literal["clarification_questions"] = "clarification_questions"
    questions: list[Question]
    context: str | None = None


class WebsiteConfig(Shown):
    """A form for a new website, for the front end to show."""

    type: Literal["website_config"] = "website_config"
    templates: list[Template]
    default_slug: str | None = None
    context: str | None = None


class AutomationConfig(Shown):
    """A form for a new automation, for the front end to show."""

    type: Literal["automation_config"] = "automation_config"
    sites: list[Site]
    default_site_id: str | None = None
    context: str | None = None


class Answered(Shown):
    """What the user has answered."""

    type: Literal["answers"] = "answers"
    answers: dict[str, str]


class Declined(Shown):
    """The user did not want to answer."""

    type: Literal["declined"] = "declined"
    note: str = "The user did not answer. Go on without it, or say what you need it for."


class Templates(Shown):
    """What the product answers."""

    templates: list[Template]


class Sites(Shown):
    """What the product answers."""

    sites: list[Site]


async def ask_clarification(
    own: Context,
    client: Client,
    questions: Annotated[
        list[Question],
        Field(description="One to three questions, each with three answers.", min_length=1, max_length=3),
    ],
    context: Reason = None,
) -> ClarificationQuestions | Answered | Declined:
    """Ask the user one to three questions, each with three answers to choose from.

    Use it when the task can be understood in ways that lead to different work. When the result is
    clarification_questions, the user sees them now: end your turn, the answers come with their next message.
    """
    if len({question.id for question in questions}) < len(questions):
        raise Refused("Every question needs an id of its own.")
    if not client.can_ask:
        return ClarificationQuestions(questions=questions, context=context)
    fields = {question.id: _choice(question) for question in questions}
    return await _asked(client, context or "Some questions before the work begins", fields)


async def ask_website_config(
    own: Context,
    client: Client,
    context: Reason = None,
    defaultSlug: Annotated[  # noqa: N803  # The name that front ends know.
        str | None,
        Field(description="A name to suggest for the website's address.", pattern="^[a-z0-9-]{3,16}$"),
    ] = None,
) -> WebsiteConfig | Answered | Declined:
    """Ask the user how a new website should be set up: its address, its template, ideas for it.

    Call create_website with what the user answers. When the result is website_config, the user sees the form now: end
    your turn.
    """
    templates = product.understood(Templates, await product.call(own, "GET", "/api/templates")).templates
    if not client.can_ask:
        return WebsiteConfig(templates=templates, default_slug=defaultSlug, context=context)
    slug = {"type": "string", "title": "Address", "minLength": 3, "maxLength": 16}
    fields: Properties = {
        "slug": {**slug, "default": defaultSlug} if defaultSlug else slug,
        "siteIdeas": {"type": "string", "title": "Ideas", "maxLength": 5000},
    }
    if templates:
        fields["templateId"] = {"type": "string", "title": "Template", "enum": [one.template_id for one in templates]}
    return await _asked(client, context or "A new website", fields)


async def ask_automation_config(
    own: Context,
    client: Client,
    context: Reason = None,
    defaultSiteId: Annotated[  # noqa: N803  # The name that front ends know.
        str | None, Field(description="The website to suggest.", min_length=1, max_length=100)
    ] = None,
) -> AutomationConfig | Answered | Declined:
    """Ask the user how a new automation should be set up: for which website, when it runs, what it does.

    When the result is automation_config, the user sees the form now: end your turn.
    """
    sites = product.understood(Sites, await product.call(own, "GET", "/api/sites")).sites
    if not sites:
        raise Refused("The user has no website yet. Offer to make one: ask_website_config.")
    if defaultSiteId is not None and defaultSiteId not in {site.id for site in sites}:
        raise Refused(f"The user has no website {defaultSiteId!r}. There are: {', '.join(site.id for site in sites)}.")
    if not client.can_ask:
        return AutomationConfig(sites=sites, default_site_id=defaultSiteId, context=context)
    fields: Properties = {
        "siteId": {"type": "string", "title": "Website", "enum": [site.id for site in sites]},
        "prompt": {"type": "string", "title": "What it does", "maxLength": 5000},
        "schedule": {"type": "string", "title": "When it runs", "maxLength": 200},
    }
    return await _asked(client, context or "A new automation", fields)


async def _asked(client: Client, message: str, fields: Properties) -> Answered | Declined:
    answers = await client.ask(message, fields)
    if answers is None:
        return Declined()
    return Answered(answers={name: str(value) for name, value in answers.items() if name in fields})


def _choice(question: Question) -> Mapping[str, Any]:
    meanings = [f"{option.label}: {option.description}" for option in question.options if option.description]
    choice = {"type": "string", "title": question.question, "enum": [option.label for option in question.options]}
    return {**choice, "description": "; ".join(meanings)} if meanings else choice
