"""Writing the files of a command."""

import contextlib
import pathlib
from collections.abc import Iterator

__all__ = ["writing_to"]


@contextlib.contextmanager
def writing_to(out: pathlib.Path) -> Iterator[None]:
    """Name the argument `out` if a write fails.

    It belongs around the writes alone: an OSError from elsewhere does not come from the input.

    Args:
      out: The folder that is written to.

    Raises:
      ValueError: If the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise ValueError(f"out: cannot write to {out}: {error}") from error
