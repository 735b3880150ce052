"""Picks the provider of a turn. Pure: it knows what it is given and asks nobody."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from alive_kit.errors import ProviderDisabled, ProviderNotChosen, ProviderNotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The configured providers."""

    endpoints: Mapping[str, str]
    disabled: frozenset[str] = field(default_factory=frozenset)
    default: str = ""

    def choose(self, *, requested: str = "", of_session: str = "", of_workspace: str = "") -> str:
        """Return the provider that answers: the one requested, else the session's, the workspace's, the default.

        Raises:
            ProviderNotFound: it is not configured.
            ProviderDisabled: it is switched off.
            ProviderNotChosen: nothing names one.
        """
        provider_id = requested or of_session or of_workspace or self.default
        if not provider_id:
            raise ProviderNotChosen
        self.check(provider_id)
        return provider_id

    def check(self, provider_id: str, *, name: str = "provider_id") -> None:
        """Refuse a provider that is not configured or switched off; the name is the request's field.

        Raises:
            ProviderNotFound: it is not configured.
            ProviderDisabled: it is switched off.
        """
        if provider_id not in self.endpoints:
            raise ProviderNotFound(provider_id, self.endpoints, field=name)
        if provider_id in self.disabled:
            raise ProviderDisabled(provider_id)

    def candidates(self, provider_id: str, others: Iterable[str]) -> list[str]:
        """Return who may take a turn, in order: the one chosen, and those others that are switched on."""
        return list(dict.fromkeys([provider_id, *(other for other in others if other in self.enabled)]))

    @property
    def enabled(self) -> list[str]:
        """The providers that are switched on, in the order of the configuration."""
        return [provider_id for provider_id in self.endpoints if provider_id not in self.disabled]
