"""The provider that is fuzzed, as a process of its own: its agents answer at once, whatever they are asked."""

from alive_kit.service import main
from alive_kit.testing.fakes import FakeProvider

if __name__ == "__main__":
    main(lambda: FakeProvider(provider_id="red"))
