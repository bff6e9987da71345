"""Hypothesis strategies for property tests: cells, params, masks and whole runs.

    from hypothesis import given
    import jaxrnn
    from jaxrnn import strategies

    @given(strategies.runs())
    def test_held_steps_change_nothing(run):
        ...

A failing example shrinks to few steps, one example, one unit and small weights. Arrays are made
from a drawn seed, so that a failing example prints in a line. Needs hypothesis: `jaxrnn[test]`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from chex import ArrayTree

from jaxrnn import _checks
from jaxrnn.cells import activations
from jaxrnn.cells.cifg import cifg
from jaxrnn.cells.contract import Cell
from jaxrnn.cells.gru import gru
from jaxrnn.cells.janet import janet
from jaxrnn.cells.lstm import lstm
from jaxrnn.cells.mgu import mgu
from jaxrnn.cells.peephole_lstm import peephole_lstm
from jaxrnn.cells.projected_lstm import projected_lstm
from jaxrnn.cells.reset_first_gru import reset_first_gru
from jaxrnn.cells.rnn import rnn
from jaxrnn.cells.ugrnn import ugrnn
from jaxrnn.running.run import Run

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError("hypothesis is missing; pip install 'jaxrnn[test]'") from error

__all__ = ["cells", "masks", "params", "runs"]

ACTIVATIONS = (activations.tanh, activations.sigmoid, activations.relu, activations.identity)


def cells() -> st.SearchStrategy[Cell]:
    """The cells of this library, `rnn`, `lstm` and `gru` with other activations too.

    Returns:
      A strategy of cells.
    """
    ours: list[Cell] = [
        *map(rnn, ACTIVATIONS), lstm(), gru(), reset_first_gru(),
        lstm(gate=activations.hard_sigmoid), gru(candidate=activations.softsign),
        cifg(), mgu(), janet(), ugrnn(), peephole_lstm(), projected_lstm(2),
    ]  # fmt: skip
    return st.sampled_from(ours)


# Hypothesis passes `draw` and takes it out of the signature, so no docstring below lists it.
@st.composite
def params(  # noqa: D417
    draw: Any, cell: Cell, input_size: int, hidden_size: int, *, dtype: Any = jnp.float32
) -> ArrayTree:
    """Params of a cell with an `init`: entries N(0, scale²), scale between 0.01 and 3.

    Args:
      cell: A cell with `init`.
      input_size: D.
      hidden_size: H.
      dtype: The dtype of every leaf.

    Returns:
      A strategy of params.

    Raises:
      TypeError: If `cell` is no cell, and as `cell.init`, when something is drawn.
      ValueError: As `cell.init`, when something is drawn.

    Cost:
      A trace of `cell.init` and NumPy's draws.
    """
    _checks.check_cell(cell)
    key = jax.random.key(0)
    # Shapes alone: the values are drawn below, from a seed of hypothesis.
    like = jax.eval_shape(lambda: cell.init(key, input_size, hidden_size, dtype=dtype))
    # Hypothesis shrinks towards the first.
    scale = draw(st.sampled_from([0.1, 0.01, 1.0, 3.0]))
    return _normal(draw, like, scale)


@st.composite
def masks(  # noqa: D417
    draw: Any, steps: int, batch: tuple[int, ...] = ()
) -> dict[str, Any]:
    """Keyword arguments lengths and resets, each None or an array; lengths `(*batch,)` in [0, T].

    Args:
      steps: T.
      batch: The batch shape.

    Returns:
      A strategy of dicts, to be passed as `jaxrnn.Run(cell, params, xs, **masks)`.

    Raises:
      TypeError: If `steps` is no integer or `batch` no tuple, when something is drawn.
      ValueError: If a size is below 0, when something is drawn.

    Cost:
      NumPy's draws.
    """
    _checks.check_integer("steps", steps, least=0)
    _checks.check_batch_shape(batch, "batch")
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    lengths = generator.integers(0, steps + 1, batch).astype(np.int32)
    resets = generator.random((steps, *batch)) < 0.3
    return {
        "lengths": draw(st.sampled_from([None, jnp.asarray(lengths)])),
        "resets": draw(st.sampled_from([None, jnp.asarray(resets)])),
    }


@st.composite
def runs(  # noqa: D417
    draw: Any,
    cell: Cell | None = None,
    *,
    most: int = 6,
    masked: bool = True,
    dtype: Any = jnp.float32,
) -> Run:
    """Runs of a cell, by default of any of `cells`, up to `most` steps, examples and units.

    Args:
      cell: A cell with `init`, or None.
      most: The largest T, D and H, at least 1; of a cell with an output projection the largest
        H - P. It bounds the batch too, which has at most 2 examples.
      masked: Whether there may be lengths and resets.
      dtype: The dtype of every float.

    Returns:
      A strategy of runs, some with a `state0` of their own and some without a batch axis.

    Raises:
      TypeError: If an argument is of the wrong kind, when something is drawn.
      ValueError: If `most` is below 1 or the cell has no `init`, when something is drawn.

    Cost:
      That of `params`. Each new shape compiles whatever it is given to.
    """
    _checks.check_integer("most", most, least=1)
    cell = draw(cells()) if cell is None else cell
    T, D, H = (draw(st.integers(1, most)) for _ in range(3))
    batch = draw(st.sampled_from([(), (1,), (min(2, most),)]))
    # A projected output has fewer entries than there are units.
    drawn = draw(params(cell, D, H + (cell.traits.output_size or 0), dtype=dtype))
    xs = _normal(draw, jax.ShapeDtypeStruct((T, *batch, D), dtype), 1.0)
    like = jax.eval_shape(lambda p: cell.init_state(p, batch), drawn)
    state0 = draw(st.sampled_from([None, _normal(draw, like, 0.5)]))
    given = draw(masks(T, batch)) if masked else {}
    return Run(cell, drawn, xs, state0, **given)


def _normal(draw: Any, like: Any, scale: float) -> Any:
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    return jax.tree.map(
        lambda leaf: jnp.asarray(scale * generator.normal(size=leaf.shape), leaf.dtype), like
    )
