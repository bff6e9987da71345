"""Modes of JAX that the whole suite is run under, and which tests each leaves out, and why.

    JAX_ENABLE_CHECKS=1 pytest -n 2
    JAX_CHECK_TRACER_LEAKS=1 pytest -n 2
    JAX_DEBUG_NANS=1 pytest -n 2
    JAX_ENABLE_X64=0 pytest -n 2

Without 64 bits what a test draws is float32, and what it allows of n eps is n eps of float32: the
promises are held in the dtype that most users have.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np

if "JAX_ENABLE_X64" not in os.environ:
    jax.config.update("jax_enable_x64", True)

CALLS = "its programs have calls whose name the checker of jax 0.10 does not take"
SUMS = "jax 0.10 sees a leak in any sum over the devices of a shard_map that has other results"
ON_PURPOSE = "NaN is put where it must show, or must reach nothing"
WIDE = "turns 64 bits on, or asks for float64"
APART = "a process of its own, which compares by the eps of float64"
SMALL = "logs, differences and faults of a size that float32 rounds away, or beyond its range"

# The tests that a mode leaves out, by words in their ids, and why.
LEFT_OUT = {
    "jax_enable_checks": {
        "[lstm-B0-layers.adjoints]": CALLS,
        "[rnn-tanh-T0-alone-layers.adjoints]": CALLS,
        "[rnn-tanh-T0-alone-direct_adjoints]": CALLS,
        "test_vmap_and_checkpoint_keep_the_gradient": CALLS,
    },
    "jax_check_tracer_leaks": {
        "test_a_batch_sharded_over_two_devices_gives": SUMS,
    },
    "jax_debug_nans": {
        "clipping.flag": ON_PURPOSE,
        "test_nan_stays_visible_in_value_and_derivative": ON_PURPOSE,
        "test_statistics_are_those_of_every_live_step": ON_PURPOSE,
        "test_horizon.py::test_edges[": ON_PURPOSE,
        "test_where_no_exponent_is_finite_the_weights_stay[nan]": ON_PURPOSE,
        "test_a_trajectory_that_is_not_finite_has_no_certificate": ON_PURPOSE,
        "test_rescaled_numbers_of_every_magnitude": ON_PURPOSE,
        "test_nan_is_never_taken_for_nothing": ON_PURPOSE,
        "test_a_policy_of_your_own_sees_the_raw_gradient": ON_PURPOSE,
        "test_what_is_not_finite_moves_no_quantile": ON_PURPOSE,
        "test_what_is_not_finite_certifies_nothing": ON_PURPOSE,
        "test_nan_in_a_step_that_counts_stays_visible": ON_PURPOSE,
        "test_no_answer_is_not_a_right_one": ON_PURPOSE,
        "test_smallest_window_holds_for_every_longer_one": ON_PURPOSE,
        "test_a_state_that_overflows_is_named_with_its_layer": ON_PURPOSE,
    },
    "32 bits": {
        "float64": WIDE,
        "docs/derivations/certificates.md": WIDE,
        "docs/derivations/products.md": WIDE,
        "docs/index.md": WIDE,
        "docs/lstm.md": WIDE,
        "[step that returns another dtype": WIDE,
        "test_a_batch_that_an_explicit_mesh_splits_is_refused": WIDE,
        "test_leaves_of_several_dtypes_are_measured_in_the_widest": WIDE,
        "test_complex_step_and_differences_on_functions": WIDE,
        "test_functions_that_are_not_analytic_are_recognised": WIDE,
        "test_reference_jacobian_has_the_tree_of_jacfwd": WIDE,
        "test_matrices_that_are_not_square_or_not_finite": WIDE,
        "test_trees_of_any_shape_and_size": WIDE,
        "test_every_step_of_the_scalar_linear_network": SMALL,
        "test_relu_derivative_is_1_above_0": SMALL,
        "test_printed_it_fits_a_terminal": SMALL,
        "test_spectral_norm_is_the_largest_singular_value": SMALL,
        "test_a_long_product_stays_finite_in_float32[12.0]": SMALL,
        "test_it_holds_for_every_net[Lyapunov exponents]": SMALL,
        "test_what_is_not_finite_is_looked_for_again_in_what_is_left": SMALL,
        "test_the_cell_steps_as_the_layout_does": SMALL,
        "test_a_wrong_result_is_rejected[truncation curve": SMALL,
        "test_a_wrong_result_is_rejected[Lyapunov exponents": SMALL,
        "test_the_bounds_are_sums_of_logs_of_singular_values": SMALL,
        "test_a_net_with_every_eigenvalue_zero_explodes": SMALL,
        "test_the_leading_exponent_has_the_derivative_of_a": SMALL,
        "test_scalar_linear_network_of_the_articles": SMALL,
        "test_its_slope_is_the_difference_quotient": SMALL,
        "test_a_batch_sharded_over_two_devices_gives": APART,
        "test_exponents_are_those_of_a_qr_over": SMALL,
        "test_linear_systems_have_the_logs_of_their_eigenvalues": SMALL,
    },
}
# What a test draws where it names no dtype.
WIDEST = jnp.dtype("float64" if jax.config.jax_enable_x64 else "float32")


def reasons(nodeid):
    """Why the modes that are on leave out a test, by its node id."""
    on = {
        "jax_enable_checks": jax.config.jax_enable_checks and jax.__version_info__ < (0, 11),
        "jax_check_tracer_leaks": jax.config.jax_check_tracer_leaks,
        "jax_debug_nans": jax.config.jax_debug_nans,
        "32 bits": not jax.config.jax_enable_x64,
    }
    return [
        f"{mode}: {why}"
        for mode, left_out in LEFT_OUT.items()
        for words, why in left_out.items()
        if on[mode] and words in nodeid
    ]


def tol(of_64_bits):
    """A tolerance of some eps of float64 in as many eps of `WIDEST`, 1e-3 at most.

    A greater one than 1e-9 is about something else than rounding, and stays.
    """
    if of_64_bits > 1e-9 or WIDEST == "float64":
        return of_64_bits
    return min(of_64_bits * float(jnp.finfo(WIDEST).eps / jnp.finfo("float64").eps), 1e-3)


def by_eps_of_widest(assert_allclose):
    """`np.testing.assert_allclose` with tolerances by `tol`.

    An absolute one grows to 1e-3 of the largest finite entry at most: it may have been made of
    entries already, or be about float32 from the start. Where 0 is wanted the test calls `tol`.
    """

    @functools.wraps(assert_allclose)
    def close(actual, desired, rtol=1e-7, atol=0.0, **options):
        sizes = np.abs(np.asarray(desired)).astype(np.float64)
        most = 1e-3 * sizes.max(initial=0.0, where=np.isfinite(sizes))
        atol = max(atol, min(tol(atol), most))
        assert_allclose(actual, desired, rtol=tol(rtol), atol=atol, **options)

    return close


def configure(config):
    """Called by pytest as it starts."""
    if not jax.config.jax_enable_x64:
        config.addinivalue_line("filterwarnings", "ignore:Explicitly requested dtype")
        np.testing.assert_allclose = by_eps_of_widest(np.testing.assert_allclose)
