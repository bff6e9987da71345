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

ACTIVATIONS = ("tanh", "relu", "sigmoid", "identity")


class Options(NamedTuple):
    """What a person may add to weights and data."""

    layout: str | None
    prefix: str | None
    activation: str | None
    lengths: pathlib.Path | None
    batch_first: bool
    chunk: int | None
    out: pathlib.Path


def diagnose_command(weights: pathlib.Path, data: pathlib.Path, options: Options) -> int:
    """Print the summary, write the report; nothing is written where the input is refused."""
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
        progress=lambda chunks: tqdm(chunks, desc="diagnosing", unit="chunk", disable=None),
    )
    with writing_to(options.out):
        paths = report.write(flow, options.out)
    show(flow, paths)
    return 0


def show(flow: GradientFlow, paths: tuple[pathlib.Path, ...]) -> None:
    """The summary, and where the rest is."""
    print(flow)
    print(f"\nWritten to {paths[0].parent}/: {', '.join(path.name for path in paths)}")


def read_weights(path: pathlib.Path, options: Options) -> convert.Model:
    """The model in a file, its layout given or guessed.

    Raises: ValueError naming `weights`, `layout` or `activation`.
    """
    if options.layout is not None and options.layout not in convert.LAYOUTS:
        known = ", ".join(convert.LAYOUTS)
        raise ValueError(f"layout: expected one of {known}, got {options.layout}")
    if options.activation not in (None, *ACTIVATIONS):
        known = ", ".join(ACTIVATIONS)
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
        if options.activation is not None and layout not in ("haiku", "equinox"):  # theirs are set
            chosen["activation"] = getattr(activations, options.activation)
        model = convert.LAYOUTS[layout].read(arrays, **chosen)
    except ValueError as error:
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
    """(layout, prefix), what is given kept and the rest guessed.

    Raises: ValueError naming the candidates.
    """
    if prefix is not None:
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
        return layout, ""  # its reader says what is missing
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
    """The array in a `.npy`, mapped and not read, so that it may be larger than memory.

    Raises: ValueError naming the argument.
    """
    if path.suffix != ".npy":
        raise ValueError(f"{name}: expected a .npy file, got {path.name}; write it with numpy.save")
    if not path.is_file():
        raise ValueError(f"{name}: expected a file, got {path}, which is none")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{name}: expected an array of numbers, got {path.name}, which cannot be read: {error}"
        ) from error


def check_data(model: convert.Model, xs: Any, options: Options) -> None:
    """Say of data what the library would say of xs, and what to do about it."""
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
