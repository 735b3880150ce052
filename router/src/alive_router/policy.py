"""Picks the provider of a turn. Pure: it knows what it is given and asks nobody."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from alive_kit.errors import (
    ProviderDisabled,
    ProviderNotChosen,
    ProviderNotFound,
    ProviderNotRolledOut,
)
from alive_router.audience import EVERYBODY, Audience


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The configured providers."""

    endpoints: Mapping[str, str]
    disabled: frozenset[str] = field(default_factory=frozenset)
    default: str = ""

    def choose(
        self, *, requested: str = "", of_session: str = "", of_workspace: str = "", audience: Audience = EVERYBODY
    ) -> str:
        """Return the provider that answers: the one requested, else the session's, the workspace's, the default.

        Where rollouts prefer one it comes before the default; where they bar the session's or the workspace's, that is
        as if not named.

        Raises:
            ProviderNotFound: it is not configured.
            ProviderDisabled: it is switched off.
            ProviderNotChosen: nothing names one.
            ProviderNotRolledOut: the workspace may not use it.
        """
        still_open = next((one for one in (of_session, of_workspace) if one and one not in audience.barred), "")
        provider_id = requested or still_open or audience.preferred or self.default
        if not provider_id:
            raise ProviderNotChosen
        self.check(provider_id, audience=audience)
        return provider_id

    def check(self, provider_id: str, *, name: str = "provider_id", audience: Audience = EVERYBODY) -> None:
        """Refuse a provider that is not configured, switched off or not rolled out; the name is the request's field.

        Raises:
            ProviderNotFound: it is not configured.
            ProviderDisabled: it is switched off.
            ProviderNotRolledOut: the workspace may not use it.
        """
        if provider_id not in self.endpoints:
            raise ProviderNotFound(provider_id, self.endpoints, field=name)
        if provider_id in self.disabled:
            raise ProviderDisabled(provider_id)
        if provider_id in audience.barred:
            raise ProviderNotRolledOut(provider_id)

    def candidates(self, provider_id: str, others: Iterable[str], audience: Audience = EVERYBODY) -> list[str]:
        """Return who may take a turn, in order: the one chosen, and those others that may be used."""
        usable = [other for other in others if other in self.enabled and other not in audience.barred]
        return list(dict.fromkeys([provider_id, *usable]))

    @property
    def enabled(self) -> list[str]:
        """The providers that are switched on, in the order of the configuration."""
        return [provider_id for provider_id in self.endpoints if provider_id not in self.disabled]
