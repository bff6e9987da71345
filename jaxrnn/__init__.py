"""Recurrent networks in pure JAX, with gradients through time that can be seen and verified.

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

from jaxrnn import diagnosis, phenomena, verification
from jaxrnn._version import __version__ as __version__
from jaxrnn.analysis import (
    bptt,
    certificates,
    jacobians,
    lyapunov,
    paths,
    products,
    truncation,
)
from jaxrnn.analysis.horizon import memory_horizon
from jaxrnn.cells import activations, traits
from jaxrnn.cells.affine import Affine
from jaxrnn.cells.cifg import CIFGParams, CIFGState, cifg
from jaxrnn.cells.contract import Cell
from jaxrnn.cells.gru import GRUParams, GRUState, gru
from jaxrnn.cells.janet import JANETParams, JANETState, janet
from jaxrnn.cells.lstm import LSTMParams, LSTMState, lstm
from jaxrnn.cells.mgu import MGUParams, MGUState, mgu
from jaxrnn.cells.peephole_lstm import PeepholeLSTMParams, PeepholeLSTMState, peephole_lstm
from jaxrnn.cells.pointwise_cell import PointwiseCell
from jaxrnn.cells.pointwise_map import Pointwise
from jaxrnn.cells.projected_lstm import (
    ProjectedLSTMParams,
    ProjectedLSTMState,
    projected_lstm,
)
from jaxrnn.cells.reset_first_gru import ResetFirstParams, ResetFirstState, reset_first_gru
from jaxrnn.cells.rnn import RNNParams, RNNState, rnn
from jaxrnn.cells.step_cell import from_step
from jaxrnn.cells.ugrnn import UGRNNParams, UGRNNState, ugrnn
from jaxrnn.diagnosis import diagnose
from jaxrnn.nets import convert, layers
from jaxrnn.numerics import matrix_products, scaled
from jaxrnn.running import unrolling
from jaxrnn.running.run import Run
from jaxrnn.running.unrolling import unroll
from jaxrnn.training import clipping, initializers, regularizers, tasks
from jaxrnn.verification import verify

_WITH_EXTRAS = {  # where a module is, and the extra that brings what it needs
    "plot": ("jaxrnn.plot", "plot"),
    "report": ("jaxrnn.report", "report"),
    "strategies": ("jaxrnn.verification.strategies", "test"),
}


def __getattr__(name: str) -> types.ModuleType:
    """`jaxrnn.plot`, `report` and `strategies`, imported when asked for.

    They need extras (matplotlib, jinja2, hypothesis), which `import jaxrnn` must do without.
    """
    if name in _WITH_EXTRAS:
        module, extra = _WITH_EXTRAS[name]
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            package = str(error.name).partition(".")[0]
            raise ModuleNotFoundError(
                f"jaxrnn.{name}: {package} is missing; pip install 'jaxrnn[{extra}]', or "
                f"pip install '.[{extra}]' from a clone",
                name=error.name,
            ) from error
    renamed = "; it was renamed jaxrnn.scaled" if name == "scaling" else ""
    raise AttributeError(f"module 'jaxrnn' has no attribute '{name}'{renamed}")


__all__ = [
    "Affine",
    "CIFGParams",
    "CIFGState",
    "Cell",
    "GRUParams",
    "GRUState",
    "JANETParams",
    "JANETState",
    "LSTMParams",
    "LSTMState",
    "MGUParams",
    "MGUState",
    "PeepholeLSTMParams",
    "PeepholeLSTMState",
    "Pointwise",
    "PointwiseCell",
    "ProjectedLSTMParams",
    "ProjectedLSTMState",
    "RNNParams",
    "RNNState",
    "ResetFirstParams",
    "ResetFirstState",
    "Run",
    "UGRNNParams",
    "UGRNNState",
    "activations",
    "bptt",
    "certificates",
    "cifg",
    "clipping",
    "convert",
    "diagnose",
    "diagnosis",
    "from_step",
    "gru",
    "initializers",
    "jacobians",
    "janet",
    "layers",
    "lstm",
    "lyapunov",
    "matrix_products",
    "memory_horizon",
    "mgu",
    "paths",
    "peephole_lstm",
    "phenomena",
    "products",
    "projected_lstm",
    "regularizers",
    "reset_first_gru",
    "rnn",
    "scaled",
    "tasks",
    "traits",
    "truncation",
    "ugrnn",
    "unroll",
    "unrolling",
    "verification",
    "verify",
]
