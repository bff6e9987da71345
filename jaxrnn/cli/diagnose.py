"""`jaxrnn diagnose`."""

import pathlib
import sys
from typing import Any, NamedTuple

import numpy as np

import jaxrnn
from jaxrnn.cells import activations
from jaxrnn.cli.writing import writing_to
from jaxrnn.diagnosis import GradientFlow
from jaxrnn.nets import convert

__all__ = ["Options", "diagnose_command"]

ACTIVATION_NAMES = ("tanh", "relu", "sigmoid", "identity")


class Options(NamedTuple):
    """What a user may say beside weights and data.

    Attributes:
      layout: A key of `convert.LAYOUTS`; None to guess it from the names of the weights.
      prefix: The prefix of their names; None to guess it.
      activation: The name of an RNN's activation; None for the default of its layout.
      lengths: A `.npy` of integers `(B,)`, or None.
      batch_first: Whether the data is `(B, T, D)`.
      chunk: How many examples are taken at a time; None to choose it from the sizes.
      reach: The share of a sequence that a gradient has to reach.
      out: The folder of the report.
    """

    layout: str | None
    prefix: str | None
    activation: str | None
    lengths: pathlib.Path | None
    batch_first: bool
    chunk: int | None
    reach: float
    out: pathlib.Path


def diagnose_command(weights: pathlib.Path, data: pathlib.Path, options: Options) -> int:
    """Print the summary and write the report.

    Args:
      weights: A `.safetensors` or `.npz` file.
      data: A `.npy` file of `(T, B, D)` or `(T, D)`.
      options: What else the user said.

    Returns:
      The exit code 0.

    Raises:
      ImportError: If an extra is missing.
      TypeError: If a dtype is refused.
      ValueError: If a file cannot be read, does not fit the others or cannot be written. Input
        that is refused leaves nothing written.
    """
    from tqdm import tqdm

    try:
        from jaxrnn import report
    except ImportError as error:
        raise ImportError(f"{error.name} is missing; pip install 'jaxrnn[report]'") from error

    model = read_weights(weights, options)
    xs = read_array("data", data)
    if options.batch_first:
        if xs.ndim != 3:
            raise ValueError(f"data: expected (B, T, D) with --batch-first, got shape {xs.shape}")
        xs = xs.swapaxes(0, 1)
    check_data(model, xs, options)
    # More examples than steps is unusual and not wrong: a hint, since nothing in a file tells which
    # axis is time. It comes after the checks, which say so if D does not fit.
    if xs.ndim == 3 and len(xs) < xs.shape[1] and not options.batch_first:
        print(
            f"jaxrnn: data read as (T, B, D): {len(xs)} steps of {xs.shape[1]} examples; if it is "
            "(B, T, D), add --batch-first",
            file=sys.stderr,
        )
    lengths = None if options.lengths is None else read_array("lengths", options.lengths)
    flow = jaxrnn.diagnose(
        model.cell,
        model.layers,
        xs,
        lengths=lengths,
        chunk=options.chunk,
        reach=options.reach,
        progress=lambda chunks: tqdm(chunks, desc="diagnosing", unit="chunk", disable=None),
    )
    with writing_to(options.out):
        paths = report.write(flow, options.out)
    show(flow, paths)
    return 0


def show(flow: GradientFlow, paths: tuple[pathlib.Path, ...]) -> None:
    """Print the summary, and where the files are."""
    print(flow)
    print(f"\nWritten to {paths[0].parent}/: {', '.join(path.name for path in paths)}")


def read_weights(path: pathlib.Path, options: Options) -> convert.Model:
    """The model in a file, its layout given or guessed.

    Args:
      path: A `.safetensors` or `.npz` file.
      options: Its `layout`, `prefix` and `activation` are used.

    Returns:
      The model, with its cell and layers.

    Raises:
      ValueError: If the file cannot be read or holds no net that is known, several nets fit, or an
        option does not fit the weights.
    """
    if options.layout is not None and options.layout not in convert.LAYOUTS:
        known = ", ".join(convert.LAYOUTS)
        raise ValueError(f"layout: expected one of {known}, got {options.layout}")
    if options.activation not in (None, *ACTIVATION_NAMES):
        known = ", ".join(ACTIVATION_NAMES)
        raise ValueError(f"activation: expected one of {known}, got {options.activation}")
    layout = options.layout
    try:
        arrays = convert.load(path)
        if not arrays:
            raise ValueError(f"weights: expected arrays, got {path.name}, which has none")
        prefix = options.prefix
        if layout is None or prefix is None:
            layout, prefix = guessed(arrays, layout, prefix)
        chosen: dict[str, Any] = {"prefix": prefix}
        # haiku's RNN is always relu and equinox has no RNN: their readers take no activation.
        if options.activation is not None and layout not in ("haiku", "equinox"):
            chosen["activation"] = getattr(activations, options.activation)
        model = convert.LAYOUTS[layout].read(arrays, **chosen)
    except ValueError as error:
        # The library names its own arguments; a user of the command knows these by `--weights`.
        words = str(error)
        for name in ("path:", "arrays:"):
            words = words.replace(name, "weights:", 1) if words.startswith(name) else words
        raise ValueError(words) from error
    if options.activation is not None and model.cell.name != f"rnn[{options.activation}]":
        raise ValueError(
            f"activation: expected none for {layout} weights of {model.cell.name}, got "
            f"{options.activation}"
        )
    return model


def guessed(arrays: dict[str, Any], layout: str | None, prefix: str | None) -> tuple[str, str]:
    """(layout, prefix): what is given is kept, the rest is guessed.

    Args:
      arrays: The weights by name.
      layout: The layout, or None to guess it.
      prefix: The prefix, or None to guess it.

    Returns:
      The pair (layout, prefix).

    Raises:
      ValueError: If no net fits, or several do; the message names them.
    """
    if prefix is not None:
        # flax and haiku write "a/b", torch "a.b", and a user may end the prefix with either.
        dotted = prefix.rstrip("./") + "."
        names = {name.replace("/", "."): leaf for name, leaf in arrays.items()}
        own = {n: leaf for n, leaf in names.items() if n.startswith(dotted) or not prefix}
        if not own:
            known = sorted({name.rpartition(".")[0] for name in names if "." in name})
            some = ", ".join(known[:6]) or "none, the names have no prefix"
            raise ValueError(f"prefix: expected one of those in the file, {some}, got {prefix}")
        return convert.guess(own)[0], prefix
    found = [pair for pair in convert.candidates(arrays) if layout in (None, pair[0])]
    if layout is not None and len(found) == 1:
        return found[0]
    if layout is not None and not found:
        return layout, ""  # the reader of this layout says which leaf is missing
    if layout is not None:
        several = ", ".join(repr(prefix) for _, prefix in found)
        raise ValueError(f"weights: expected one net, got those under {several}; give --prefix")
    if len(found) > 1:
        several = "; ".join(f"{name} under {prefix or 'no prefix'}" for name, prefix in found)
        raise ValueError(
            f"weights: expected one net, got {several}; say which with --prefix or --layout"
        )
    return convert.guess(arrays)


def read_array(name: str, path: pathlib.Path) -> Any:
    """The array in a `.npy` file, which is mapped and not read: it may be larger than memory.

    Args:
      name: The name of the argument, for messages.
      path: The file.

    Returns:
      A NumPy array.

    Raises:
      ValueError: If there is no such `.npy` file, or it cannot be read.
    """
    if path.suffix != ".npy":
        raise ValueError(f"{name}: expected a .npy file, got {path.name}; write it with numpy.save")
    if not path.is_file():
        raise ValueError(f"{name}: expected a file, got {path}; no such file exists")
    try:
        # A pickle may run any code when it is read.
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{name}: expected an array of numbers, got {path.name}, which cannot be read: {error}"
        ) from error


def check_data(model: convert.Model, xs: Any, options: Options) -> None:
    """Refuse data that the library would refuse as xs, and say what to do about it."""
    # D and the dtype are those of the first layer, the one that reads the data.
    w = model.layers[0].forward.w_ih
    if xs.ndim < 2 or xs.ndim > 3:
        raise ValueError(f"data: expected (T, B, D) or (T, D), got shape {xs.shape}")
    if xs.dtype != w.dtype:
        raise ValueError(
            f"data: expected {w.dtype} as the weights, got {xs.dtype}; "
            f"save it with xs.astype('{w.dtype}')"
        )
    if xs.shape[-1] != w.shape[1]:
        raise ValueError(
            f"data: expected the last axis D = {w.shape[1]} of the weights, got shape {xs.shape}"
        )
