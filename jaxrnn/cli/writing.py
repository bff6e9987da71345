"""Writing what a command gives."""

import contextlib
import pathlib
from collections.abc import Iterator

__all__ = ["writing_to"]


@contextlib.contextmanager
def writing_to(out: pathlib.Path) -> Iterator[None]:
    """Name the argument when a write fails. Around the writes alone: other OSErrors are no input's.

    Raises: ValueError for an OSError.
    """
    try:
        yield
    except OSError as error:
        raise ValueError(f"out: cannot write to {out}: {error}") from error
