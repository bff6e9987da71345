"""Checks of public arguments. Each error names the argument, what was expected and what came.

Checks read only shapes, dtypes and tree structures. These are known under `jax.jit` too, so bad
input is refused while tracing, before anything is computed.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def describe(value: Any) -> str:
    """`float32[4, 3]` for an array, the type's name for anything else."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}{list(value.shape)}"
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def check_array(name: str, value: Any, *, kind: Any = jnp.floating) -> None:
    """Refuse what is not an array of the given kind (`jnp.floating`, `jnp.integer`, `np.bool_`).

    None stands for any kind.
    """
    # A ShapeDtypeStruct too: some checks run on what `jax.eval_shape` gives.
    if not isinstance(value, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
        raise TypeError(
            f"{name}: expected an array, got {describe(value)}; "
            "convert it explicitly, e.g. with jnp.asarray"
        )
    if kind is not None and not jnp.issubdtype(value.dtype, kind):
        raise TypeError(f"{name}: expected {_dtype_words(kind)} dtype, got {describe(value)}")
    # A NumPy array keeps float64 until JAX first reads it, and JAX rounds it without a warning.
    floats = jnp.issubdtype(value.dtype, jnp.floating)
    if floats and jax.dtypes.canonicalize_dtype(value.dtype) != value.dtype:
        raise TypeError(
            f"{name}: expected a dtype that JAX keeps, got {describe(value)}, which JAX rounds to "
            "float32 unless 64-bit mode is on; cast it with .astype, or call "
            "jax.config.update('jax_enable_x64', True)"
        )


def _dtype_words(kind: Any) -> str:
    known: dict[Any, str] = {
        jnp.floating: "a real floating",
        jnp.inexact: "a floating",
        jnp.integer: "an integer",
        np.bool_: "a boolean",
    }
    return known.get(kind, str(kind))


def check_dtype(name: str, value: Any, dtype: Any, owner: str) -> None:
    """Refuse an array whose dtype differs from `dtype`, the dtype of `owner`."""
    if value.dtype != dtype:
        raise TypeError(
            f"{name}: expected {jnp.dtype(dtype).name}, the dtype of {owner}, "
            f"got {describe(value)}; cast one of them explicitly with .astype"
        )


def check_shape(name: str, value: Any, expected: tuple[int | None, ...], symbols: str) -> None:
    """Refuse an array of another shape. None is any size; `symbols` names the axes: `(G·H, D)`."""
    shape = tuple(value.shape)
    if None in expected:
        if len(shape) != len(expected):
            raise ValueError(f"{name}: expected shape {symbols}, got {describe(value)}")
    elif shape != expected:
        hint = "; it looks transposed" if len(expected) > 1 and shape == expected[::-1] else ""
        raise ValueError(f"{name}: expected shape {symbols} = {expected}, got {shape}{hint}")


def check_instance(name: str, value: Any, cls: type, expected: str, hint: str = "") -> None:
    """Refuse what is not a `cls`; `expected` describes it, `hint` says what to do."""
    if not isinstance(value, cls):
        hint = f"; {hint}" if hint else ""
        raise TypeError(f"{name}: expected {expected}, got {describe(value)}{hint}")


def check_record(name: str, value: Any, cls: Any) -> None:
    """Refuse anything but an instance of the NamedTuple `cls` with no leaf missing."""
    expected = f"{cls.__name__}({', '.join(cls._fields)})"
    hint = "a plain tuple or dict does not say which leaf is which"
    check_instance(name, value, cls, expected, hint)
    for field in cls._fields:
        if getattr(value, field) is None:
            raise TypeError(f"{name}.{field}: expected an array, got None (missing leaf)")


def check_record_type(name: str, value: Any, fields: tuple[str, ...]) -> None:
    """Refuse anything but a NamedTuple class with at least these fields."""
    if not (isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields")):
        raise TypeError(f"{name}: expected a NamedTuple class, got {value!r}")
    missing = [field for field in fields if field not in value._fields]
    if missing:
        raise ValueError(f"{name}: expected a field {missing[0]}, got {', '.join(value._fields)}")


def check_callable(name: str, value: Any, example: str) -> None:
    """Refuse what cannot be called."""
    if not callable(value):
        raise TypeError(f"{name}: expected a function {example}, got {describe(value)}")


def check_names(name: str, value: Any) -> None:
    """Refuse anything but a tuple of different strings, at least one."""
    words = "expected a tuple of different names, at least one,"
    if not isinstance(value, tuple) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{name}: {words} got {value!r}")
    if not value or len(set(value)) != len(value):
        raise ValueError(f"{name}: {words} got {value!r}")


def check_integer(name: str, value: Any, *, least: int, most: int | None = None) -> None:
    """Refuse what is not an integer of at least `least` and, if `most` is given, at most `most`."""
    # Python's bool is an int: without the first test True would pass for 1.
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an integer, got {value!r} ({type(value).__name__})")
    if most is not None and not least <= value <= most:
        empty = ", an empty range since the run has no step" if most < least else ""
        raise ValueError(f"{name}: expected an integer in [{least}, {most}]{empty}, got {value}")
    if value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value}")


def check_key(key: Any) -> None:
    """Refuse anything but one PRNG key (`jax.random.key`, or the older uint32 pair)."""
    dtype = getattr(key, "dtype", None)
    shape = getattr(key, "shape", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ()
    legacy = dtype == np.uint32 and shape in ((2,), (4,))
    if not (typed or legacy):
        raise TypeError(f"key: expected one key from jax.random.key(seed), got {describe(key)}")


def floating_dtype(dtype: Any) -> np.dtype:
    """The requested dtype, or JAX's default float. Refuse a dtype that is no real float."""
    if dtype is None:
        return jnp.result_type(float)
    try:
        wanted = jnp.dtype(dtype)
    except TypeError:
        wanted = None
    if wanted is None or not jnp.issubdtype(wanted, jnp.floating):
        raise TypeError(f"dtype: expected a real floating dtype, got {wanted or dtype}")
    if jax.dtypes.canonicalize_dtype(wanted) != wanted:
        raise TypeError(
            f"dtype: {wanted} needs 64-bit mode; enable it with "
            "jax.config.update('jax_enable_x64', True) or inside `with jax.enable_x64(True):`"
        )
    return wanted


def check_real(
    name: str, value: Any, *, least: float | None = None, above: float | None = None
) -> None:
    """Refuse what is not one finite real number, at least `least` and above `above`.

    An array is refused too: under `jit` its value would not be known. `check_scalar` takes one.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name}: expected a real number, got {value!r} ({type(value).__name__})")
    if not np.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}")
    if least is not None and value < least:
        raise ValueError(f"{name}: expected a number of at least {least:g}, got {value}")
    if above is not None and value <= above:
        raise ValueError(f"{name}: expected a number above {above:g}, got {value}")


def check_scalar(name: str, value: Any, *, above: float | None = None) -> None:
    """Refuse what is neither a real number as in `check_real` nor a scalar array of real floats.

    The value of an array is not looked at, since it is not known under `jit`.
    """
    if hasattr(value, "shape") and not isinstance(value, np.generic):
        check_array(name, value)
        check_shape(name, value, (), "(), a scalar")
    else:
        check_real(name, value, above=above)


def check_range(name: str, value: Any) -> None:
    """Refuse what is not a pair (lowest, highest) of real numbers, ±inf allowed."""
    pair = isinstance(value, tuple) and len(value) == 2
    if not pair or not all(isinstance(end, int | float) for end in value) or value[0] >= value[1]:
        raise ValueError(f"{name}: expected (lowest, highest), got {value!r}")


def check_batch_shape(value: Any, name: str = "batch_shape") -> None:
    """Refuse anything but a tuple of sizes."""
    if not isinstance(value, tuple):
        raise TypeError(f"{name}: expected a tuple of sizes such as (), (32,), got {value!r}")
    for size in value:
        check_integer(name, size, least=0)


def check_sequence(name: str, xs: Any) -> tuple[int, ...]:
    """Refuse what is not time-major (T, *batch, D). Returns the batch shape."""
    check_array(name, xs)
    if len(xs.shape) < 2:
        raise ValueError(
            f"{name}: expected shape (T, *batch, D) with at least the axes T and D, "
            f"got {describe(xs)}"
        )
    return tuple(xs.shape[1:-1])


def check_cell(cell: Any) -> None:
    """Refuse what does not keep the `Cell` contract."""
    # A class has the methods as well, but no cell: `jaxrnn.PointwiseCell` for an instance of it.
    verbs = ("step", "project", "update", "check_params")
    if isinstance(cell, type) or not all(hasattr(cell, verb) for verb in verbs):
        raise TypeError(
            f"cell: expected a cell such as jaxrnn.lstm(), got {describe(cell)}; "
            "wrap a step function with jaxrnn.from_step(step, ...)"
        )


def check_batch(name: str, got: tuple[int, ...], xs: Any) -> None:
    """Refuse a batch shape other than that of xs. If xs looks batch-first, say so."""
    batch = tuple(xs.shape[1:-1])
    if tuple(got) == batch:
        return
    hint = ""
    if len(got) == 1 and len(batch) == 1 and xs.shape[0] == got[0]:
        hint = "; xs looks batch-first (B, T, D): pass xs.swapaxes(0, 1)"
    raise ValueError(
        f"{name}: expected the batch shape {batch} of xs {tuple(xs.shape)} = (T, *batch, D), "
        f"got {tuple(got)}{hint}"
    )


def check_batch_first(name: str, state: Any, xs: Any) -> None:
    """Refuse a state whose batch fits the first axis of xs instead of the second."""
    # The cell's own check would refuse it too, but without the likely cause.
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        shape = tuple(getattr(leaf, "shape", ()))
        if len(shape) == xs.ndim - 1 and shape[:-1] == tuple(xs.shape[:-2]):
            check_batch(name + jax.tree_util.keystr(path), shape[:-1], xs)


def check_lead(name: str, got: tuple[int, ...], lead: tuple[int, ...], x: Any) -> None:
    """Refuse leading axes other than `lead`, those of x."""
    if tuple(got) != tuple(lead):
        shapes = jax.tree.map(lambda leaf: tuple(leaf.shape), x)
        raise ValueError(
            f"{name}: expected the leading axes {tuple(lead)} of the input {shapes}, got "
            f"{tuple(got)}"
        )


def check_lengths(lengths: Any, xs: Any) -> None:
    """Refuse lengths that are not integers of the batch shape, or not in [0, T].

    Values can be read only outside a trace. Under `jit` a length below 0 acts as 0 and one above T
    as T.
    """
    check_array("lengths", lengths, kind=jnp.integer)
    check_batch("lengths", tuple(lengths.shape), xs)
    if isinstance(lengths, jax.core.Tracer | jax.ShapeDtypeStruct) or lengths.size == 0:
        return
    values, T = np.asarray(lengths), xs.shape[0]
    if values.min() < 0 or values.max() > T:
        bad = values[(values < 0) | (values > T)].flat[0]
        raise ValueError(f"lengths: expected values in [0, T] = [0, {T}], got {bad}")


def check_resets(resets: Any, xs: Any) -> None:
    """Refuse resets that are not booleans of shape (T, *batch)."""
    check_array("resets", resets, kind=np.bool_)
    expected, got = tuple(xs.shape[:-1]), tuple(resets.shape)
    if got != expected:
        # Which of the two is transposed cannot be told.
        hint = "; resets are (T, *batch) and xs is (T, *batch, D): one of the two is transposed"
        raise ValueError(
            f"resets: expected shape (T, *batch) = {expected}, that of xs without its last axis, "
            f"got {got}{hint if len(got) == 2 and got == expected[::-1] else ''}"
        )


def check_tree(name: str, got: Any, expected: Any, source: str, kind: Any = jnp.floating) -> None:
    """Refuse a tree whose structure, shapes or dtypes differ from `expected`; `kind` as above."""
    # Structures first: with another structure, leaves of one tree have no partner in the other.
    structures = jax.tree.structure(got), jax.tree.structure(expected)
    if structures[0] != structures[1]:
        # A single leaf has the structure `*`, which tells nothing: it is described by itself.
        bare = jax.tree_util.treedef_is_leaf(structures[0]) or got is None
        came = describe(got) if bare else structures[0]
        raise TypeError(f"{name}: expected the tree of {source}, {structures[1]}, got {came}")
    paths = jax.tree_util.tree_leaves_with_path(got)
    for (path, leaf), want in zip(paths, jax.tree.leaves(expected), strict=True):
        leaf_name = name + jax.tree_util.keystr(path)
        check_array(leaf_name, leaf, kind=kind)
        if leaf.shape != want.shape:
            raise ValueError(
                f"{leaf_name}: expected {describe(want)} as in {source}, got {describe(leaf)}"
            )
        check_dtype(leaf_name, leaf, want.dtype, source)


def check_loss(name: str, f: Any, states: Any, shape: tuple[int, ...]) -> None:
    """Refuse a function of the states unless it returns real numbers of the given shape."""
    what = "one real scalar" if shape == () else f"one real loss a step, (T,) = {shape}"
    words = f"{name}: expected a function that returns {what}, got"

    def probe(states: Any) -> None:
        # Checked inside the trace: `jax.eval_shape` fails with an error of its own if a function
        # returns what is no array.
        value = f(states)
        real = isinstance(value, float) or (
            isinstance(value, jax.Array | np.ndarray | np.generic)
            and jnp.issubdtype(value.dtype, jnp.floating)
        )
        if not real:
            raise TypeError(f"{words} {describe(value)}")
        if jnp.shape(value) != shape:
            hint = "; take its sum or its mean" if shape == () else ""
            raise ValueError(f"{words} {describe(value)}{hint}")

    jax.eval_shape(probe, states)


def form(tree: Any) -> str:
    """A tree by the names of its leaves, without their sizes."""
    if hasattr(tree, "_fields"):
        return f"{type(tree).__name__}({', '.join(tree._fields)})"
    if isinstance(tree, dict):
        return f"a dict of {', '.join(map(str, tree))}"
    return describe(tree)
