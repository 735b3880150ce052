"""What is in memory, for tests of what must not be there any more."""

import contextlib
import gc
from collections import Counter
from collections.abc import Iterator


@contextlib.contextmanager
def cycles_stay() -> Iterator[None]:
    """Have nothing collected, until the block ends, that refers to itself."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def kept(package: str) -> "Counter[str]":
    """Count what is in memory of a package's classes, by class."""
    classes = (type(one) for one in gc.get_objects())
    return Counter(cls.__qualname__ for cls in classes if str(cls.__module__).startswith(package))
