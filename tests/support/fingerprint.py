"""The bits of one program that has all that is differentiated, for processes that compare them.

python -m tests.support.fingerprint lstm float32
"""

import functools
import hashlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import clipping, jacobians, lyapunov
from tests.support import drawing
from tests.support.table import CELLS

# Matmuls that XLA gives to several threads, in the long profile without `-n`.
T, B, D, H = 8, 16, 8, 64


def drawn(cell, dtype, T=T, B=B, D=D, H=H):
    return drawing.drawn(cell, T, (B,), D, H, scale=H**-0.5, dtype=dtype)


# Compiled, for where its slope is asked for without `jit`.
@jax.jit
def loss(states):
    return sum(jnp.sum(jnp.sin(leaf)) for leaf in states)


@functools.partial(jax.jit, static_argnums=0)
def everything(cell, *case):
    """States, gradients, Jacobians, clipped gradients, exponents."""
    gradients = jax.grad(lambda case: loss(jaxrnn.unroll(cell, *case)))(case)
    clip, run = clipping.clip_by_global_norm(1.0), jaxrnn.Run(cell, *case)
    return (
        jaxrnn.unroll(cell, *case),
        gradients,
        jacobians.closed_form(run),
        clip.update(gradients, clip.init(case)),
        lyapunov.exponents(run, count=4),
    )


def bits(tree):
    """A hash of every bit of every leaf."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()


def fingerprint(name, dtype):
    return bits(everything(CELLS[name], *drawn(CELLS[name], dtype)))


if __name__ == "__main__":
    print(fingerprint(*sys.argv[1:]))
