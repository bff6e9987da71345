"""Weights from a file: safetensors, or npz without pickle."""

import pathlib
import zipfile
from typing import Any

import numpy as np

__all__ = ["load"]

PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"}
RECIPE = (
    'python -c "import torch, safetensors.torch as s; '
    "s.save_file(torch.load('{name}', weights_only=True), '{stem}.safetensors')\""
)


def load(path: str | pathlib.Path) -> dict[str, Any]:
    """The arrays of a file by name.

    Args:
      path: The path of a `.safetensors` or `.npz` file, a string or a Path.

    Returns:
      A dict of NumPy arrays by name, in the dtypes of the file.

    Raises:
      TypeError: If `path` is no string and no Path.
      ValueError: If the file is missing, empty, cut off or of another kind, or holds an array of
        Python objects. Pickles are refused too, since reading one may run any code.
      ImportError: If the file is `.safetensors` and the package safetensors is missing.

    Cost:
      One read of the file, all of it in memory.

    >>> import numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/w.npz", a=np.arange(3.0))
    ...     load(f"{folder}/w.npz")["a"].tolist()
    [0.0, 1.0, 2.0]
    """
    if not isinstance(path, str | pathlib.Path):
        raise TypeError(f"path: expected a string or a Path, got {path!r}")
    path = pathlib.Path(path)
    if path.suffix in PICKLES:
        recipe = RECIPE.format(name=path.name, stem=path.stem)
        raise ValueError(
            f"path: expected .safetensors or .npz, got {path.name}, a pickle, which may run any "
            f"code when read; if you trust it, convert it:\n  {recipe}"
        )
    if path.suffix not in (".safetensors", ".npz"):
        raise ValueError(f"path: expected .safetensors or .npz, got {path.name}")
    if not path.is_file():
        raise ValueError(f"path: expected a file, got {path}, where there is none")
    if path.stat().st_size == 0:
        raise ValueError(f"path: expected weights, got {path.name}, which is empty")
    return _npz(path) if path.suffix == ".npz" else _safetensors(path)


def _npz(path: pathlib.Path) -> dict[str, Any]:
    try:
        # Opened here: given a path, numpy leaves a file that it cannot read open. Without pickle,
        # since unpickling may run any code.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        # NumPy raises a bare ValueError for these; only its text tells them apart.
        objects = "Object arrays" in str(error)
        got = "which holds an array of Python objects" if objects else "which cannot be read"
        raise ValueError(f"path: expected an npz of numbers, got {path.name}, {got}") from error


def _safetensors(path: pathlib.Path) -> dict[str, Any]:
    # Imported here, since it is an extra that npz files do without.
    try:
        import safetensors
        from safetensors import numpy as reader
    except ImportError as error:
        raise ImportError("safetensors is missing; pip install 'jaxrnn[io]'") from error
    try:
        return dict(reader.load_file(path))
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"path: expected safetensors, got {path.name}, which cannot be read: {error}"
        ) from error
