"""Recurrent networks in pure JAX whose gradients through time can be seen and verified.

>>> import jax, jaxrnn
>>> cell = jaxrnn.lstm()
>>> params = cell.init(jax.random.key(0), 3, 5)
>>> xs = jax.random.normal(jax.random.key(1), (20, 4, 3))      # (T, B, D)
>>> states = jaxrnn.unroll(cell, params, xs)                   # states.h, states.c
>>> run = jaxrnn.Run(cell, params, xs)                         # what analyses are asked about
>>> J = jaxrnn.jacobians.closed_form(run)                      # J.c.h is ∂cᵢ/∂hᵢ₋₁
>>> J.c.h.shape
(20, 4, 5, 5)
"""

import importlib
import types

from jaxrnn import (
    activations,
    bptt,
    certificates,
    clipping,
    convert,
    diagnosis,
    initializers,
    jacobians,
    layers,
    lyapunov,
    matrix_products,
    paths,
    phenomena,
    products,
    regularizers,
    tasks,
    truncation,
    unrolling,
    verification,
)
from jaxrnn.cell import Cell
from jaxrnn.cells.gru import GRUParams, GRUState, gru
from jaxrnn.cells.lstm import LSTMParams, LSTMState, lstm
from jaxrnn.cells.reset_first import ResetFirstParams, ResetFirstState, reset_first_gru
from jaxrnn.cells.rnn import RNNParams, RNNState, rnn
from jaxrnn.diagnosis import diagnose
from jaxrnn.horizon import memory_horizon
from jaxrnn.pointwise import Pointwise
from jaxrnn.pointwise_cell import PointwiseCell
from jaxrnn.run import Run
from jaxrnn.step_cell import from_step
from jaxrnn.unrolling import unroll
from jaxrnn.verification import verify

__version__ = "0.1.0"


def __getattr__(name: str) -> types.ModuleType:
    """`jaxrnn.plot`, `report` and `strategies`, imported when asked for: they need extras."""
    if name in ("plot", "report", "strategies"):
        return importlib.import_module(f"jaxrnn.{name}")
    raise AttributeError(f"module 'jaxrnn' has no attribute '{name}'")


__all__ = [
    "Cell",
    "GRUParams",
    "GRUState",
    "LSTMParams",
    "LSTMState",
    "Pointwise",
    "PointwiseCell",
    "RNNParams",
    "RNNState",
    "ResetFirstParams",
    "ResetFirstState",
    "Run",
    "activations",
    "bptt",
    "certificates",
    "clipping",
    "convert",
    "diagnose",
    "diagnosis",
    "from_step",
    "gru",
    "initializers",
    "jacobians",
    "layers",
    "lstm",
    "lyapunov",
    "matrix_products",
    "memory_horizon",
    "paths",
    "phenomena",
    "products",
    "regularizers",
    "reset_first_gru",
    "rnn",
    "tasks",
    "truncation",
    "unroll",
    "unrolling",
    "verification",
    "verify",
]
