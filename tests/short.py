"""What the short profile runs of the tests whose every case compiles programs of its own.

Together those are three quarters of the suite's time. The short profile, `pytest`, runs the cases
whose ids match the pattern here; `pytest -m ""` runs all of them.
"""

import re

KEPT = {
    # As the short profile compiles, float32's tanh is 1 from 20 on, and for users from 8 on.
    "test_activations.py::test_float32_autodiff_of_tanh_is_exactly_zero_where_the_closed_form_is_not":
        r"20.0|43.0",
    "test_bptt.py::test_each_term_is_the_gradient_by_that_steps_own_copy":
        r"(lstm|gru)-\(2, 3\)-True|step-\(\)-True|lstm-\(\)-False|rnn-tanh-\(3,\)-False",
    "test_bptt.py::test_norms_and_inner_products_are_those_of_the_contributions":
        r"lstm-\(2, 3\)-True|gru-\(40,\)-True|gru-\(\)-False|step-\(\)-False|rnn-tanh-\(3,\)-True",
    "test_bptt.py::test_contributions_add_up_to_the_gradient_of_a_plain_scan":
        r"rnn-tanh-(1|1000)|rnn-(sigmoid|relu|identity)-7|lstm-(1|64|1000)|gru-(1|64)|step-2",
    "test_bptt.py::test_credit_is_the_norm_of_the_adjoints_of_each_steps_loss":
        r"gru-3-True|lstm-3-True|rnn-tanh-1-False|step-100-False",
    "test_bptt.py::test_empty_sequences_and_batches_give_zeros":
        r"lstm-.*|step-0-batch0|gru-3-batch2",
    "test_bptt.py::test_jit_and_vmap_change_nothing":
        r"lstm-.*|(rnn-tanh|step)-adjoints|gru-contribution_norms",
    "test_bptt.py::test_no_chunk_changes_norms_or_total": r"lstm-(1|9)|rnn-tanh-4|gru-11|step-4",
    "test_bptt.py::test_a_reset_makes_two_sequences": r"lstm|step",
    "test_canaries.py::test_a_wrong_tangent_is_seen_by_every_property":
        r".*-no output feedback|(state Jacobian|gradient of unroll)-.*",
    "test_canaries.py::test_a_wrong_tangent_scan_is_rejected":
        r".*-gradient of unroll|drive: (bias dropped|one step late)-temporal contributions",
    "test_canaries.py::test_verify_rejects_it":
        r"state_jacobian: transposed|param_jacobian: bias.*",
    "test_certificates.py::test_no_product_exceeds_its_bound":
        r"(rnn-relu|lstm)-float64|(rnn-sigmoid|gru)-float32",
    "test_certificates.py::test_the_bounds_are_sums_of_logs_of_singular_values":
        r"rnn-relu|lstm|gru",
    "test_cures.py::test_each_command_prints_its_table_and_writes_json_and_picture":
        r"horizon|adding",
    "test_determinism.py::test_a_chunk_changes_a_few_ulp_at_most": r"lstm-float32-5|gru-bfloat16-1",
    "test_determinism.py::test_a_hundred_runs_and_three_fresh_processes_give_the_same_bits":
        r"lstm-float32",
    "test_determinism.py::test_eager_jit_and_checkpoint_give_the_same_bits":
        r"lstm-float32|gru-bfloat16",
    "test_diagnosis.py::test_chunks_give_what_the_whole_gives": r"False-last",
    "test_diagnosis.py::test_half_precision_is_diagnosed_about_as_its_float32": r"bfloat16",
    "test_diagnosis.py::test_a_planted_illness_is_named_and_no_other":
        r".*-None|forget gates shut-.*|exploding tanh RNN-.*",
    "test_edges.py::test_value_gradient_jit_and_vmap":
        r"rnn-tanh-T0-alone-.*|lstm-T0-(unroll|c_path|decompose)|lstm-B0-(unroll|adjoints|curve|"
        r"transport_norms|certify|layers.adjoints)|lstm-T1-B1-D1-H1-(unroll|adjoints|"
        r"transport_norms)|step-T1-alone-(wrt_params|gradient)",
    "test_edges.py::test_an_example_is_the_same_alone_and_beside_one_that_is_not_finite":
        r"lstm-(unroll|closed_form|c_path|adjoints|transport_norms|certify|exponents|"
        r"layers.adjoints)|step-(last_state|wrt_params|temporal_contributions|"
        r"sequential)",
    "test_edges.py::test_padding_reaches_neither_value_nor_gradient":
        r"lstm-(unroll|wrt_params|c_path|contribution_norms|curve|omega|layers.adjoints)|"
        r"step-(last_state|closed_form|temporal_contributions|tangent_norms)",
    "test_example_gradients.py::test_every_size_is_that_of_the_example_alone":
        r"lstm-True|step-True",
    "test_gate_statistics.py::test_statistics_are_those_of_every_live_step":
        r"rnn.*-True-3|lstm-(True-1|False-3)|gru-(True-3|False-1)",
    "test_initializers.py::test_any_cell_is_brought_to_an_exponent": r"rnn-tanh|lstm",
    "test_jacobians.py::test_input_and_param_jacobians_equal_autodiff_of_the_step":
        r"rnn-tanh|lstm|gru",
    "test_jacobians.py::test_lengths_hold_and_resets_cut": r"rnn-tanh|lstm|gru",
    "test_layers.py::test_states_and_adjoints_are_those_of_plain_scans":
        r"lstm-lengths1-True|rnn-tanh-lengths1-False",
    "test_lyapunov.py::test_exponents_are_those_of_a_qr_over_complex_step_jacobians":
        r"lstm|rnn-tanh",
    "test_phenomena.py::test_norms_are_those_of_autodiff_and_the_record_prints":
        r"exploding_lstm|vanishing",
    "test_products.py::test_a_million_steps_of_known_systems": r"100000-.*",
    "test_products.py::test_products_split_at_any_point_agree": r"gru",
    "test_products.py::test_sequential_and_associative_agree_over_many_steps": r"60",
    "test_products.py::test_the_transport_of_every_pair_is_the_product": r"lstm|rnn-relu",
    "test_products.py::test_no_step_one_step_and_no_batch": r"rnn-relu|lstm|gru",
    "test_products.py::test_padding_is_the_identity_and_a_reset_cuts_off": r"rnn-tanh|lstm|gru",
    "test_products.py::test_products_of_a_stack_are_those_of_numpy": r".*-0.001|associative-1000.0",
    "test_products.py::test_vectors_pass_held_steps_and_stop_at_resets": r"rnn-tanh|lstm|gru",
    "test_regularizers.py::test_a_reset_ends_it": r"gru",
    "test_regularizers.py::test_its_slope_is_the_difference_quotient": r"leaky",
    "test_regularizers.py::test_its_slope_through_a_run_is_the_central_difference_in_float64":
        r"lstm-True|gru-False",
    "test_regularizers.py::test_flossing_brings_the_leading_exponent_to_its_target":
        r"rnn-tanh",
    "test_regularizers.py::test_omega_and_its_gradient_are_those_written_out": r"lstm|leaky",
    "test_regularizers.py::test_padding_adds_nothing": r"lstm",
    "test_regularizers.py::test_the_gradient_at_fixed_adjoints_holds_states_and_adjoints":
        r"gru|leaky",
    "test_regularizers.py::test_where_no_gradient_comes_through_the_slope_is_finite":
        r"omega-(rnn-relu|leaky)|omega_at_fixed_adjoints-lstm",
    "test_report.py::test_a_browser_draws_every_figure_and_scrolls_only_down":
        r"False-1280-several|False-390-one|True-390-several",
    "test_tangent_scan.py::test_gradients_and_hessian_products_equal_plain_autodiff":
        r"lstm-\(33, .*|gru-\(5, .*|rnn-tanh-\(1, .*|rnn-relu-\(7, .*",
    "test_tangent_scan.py::test_last_state_is_the_last_of_unroll_with_its_gradient":
        r"lstm-4|rnn-tanh-None|gru-13",
    "test_tangent_scan.py::test_no_plan_changes_the_gradient":
        r"(rnn-tanh|gru)-4-True|(rnn-tanh|gru)-11-False|lstm-4-False|lstm-11-True|lstm-1-False",
    "test_tangent_scan.py::test_every_mode_and_the_hessian_of_a_small_case": r"lstm|rnn-tanh",
    "test_tangent_scan.py::test_short_dtypes_have_the_gradient_of_long_ones_nearly":
        r"lstm-.*|gru-bfloat16|rnn-tanh-float16",
    "test_truncation.py::test_curve_equals_one_truncated_gradient_after_the_other":
        r"(lstm|step)-masked|(gru|rnn-tanh)-whole",
    "test_truncation.py::test_curve_of_last_equals_curve":
        r"lstm-\(3,\)-True|gru-\(2, 2\)-True|step-\(\)-False|rnn-tanh-\(3,\)-False",
    "test_truncation.py::test_gradient_carries_every_term_back_through_k_steps":
        r"(lstm|step)-2-masked|rnn-tanh-1-whole",
    "test_truncation.py::test_the_longest_window_gives_the_gradient_and_no_shorter_one":
        r"(lstm|step)-masked-\(2, 3\)|gru-whole-\(\)|rnn-tanh-whole-\(2, 3\)",
    "test_truncation.py::test_jit_and_vmap_change_nothing":
        r"gru-curve|step-(curve_of_last|gradient)",
    "test_unrolling.py::test_a_batch_sharded_over_two_devices_gives_the_unsharded_states_and_gradients":
        r"lstm",
    "test_unrolling.py::test_an_empty_batch_has_empty_results": r"lstm|gru",
    # All cells with all shapes are in `jaxrnn verify`, which `.ci/run` runs too.
    "test_verification.py::test_our_cells_pass": r"rnn-relu",
    "test_verification.py::test_planted_fault_is_found_and_located":
        r"lstm (kf 50 % off|no output feedback)|gru reset.*|rnn.*",
}  # fmt: skip


def is_long(nodeid):
    """Whether a test is left to the long profile, by its node id."""
    test, _, case = nodeid.removeprefix("tests/").partition("[")
    return test in KEPT and not re.fullmatch(KEPT[test], case.removesuffix("]"))
