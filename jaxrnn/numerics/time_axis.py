"""The time axis, the first one of every array: what precedes a step, and a choice by examples."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["entering_states", "previous", "select"]

Tree = TypeVar("Tree")


def previous(state0: Tree, states: Tree) -> Tree:
    """s₀ … s_{T-1} from s₀ and s₁ … s_T."""
    return jax.tree.map(
        lambda first, rest: jnp.concatenate([first[None], rest])[: rest.shape[0]], state0, states
    )


def entering_states(state0: Tree, states: Tree, resets: Array | None = None) -> Tree:
    """The state that each step starts from: the state before it, or `state0` where reset."""
    before = previous(state0, states)
    if resets is None:
        return before
    again = jax.tree.map(lambda s, b: jnp.broadcast_to(s, b.shape), state0, before)
    return select(resets, again, before)


def select(where: Array, chosen: Tree, other: Tree) -> Tree:
    """`chosen` where True, by whole examples, else `other`.

    `where` is `(*batch,)`, leaves are `(*batch, ·)`.
    """

    def leaf(a: Array, b: Array) -> Array:
        return jnp.where(where.reshape(*where.shape, *[1] * (a.ndim - where.ndim)), a, b)

    return jax.tree.map(leaf, chosen, other)
