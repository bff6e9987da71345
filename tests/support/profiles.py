"""The short profile, `pytest`, and the long one, `pytest -m ""`.

Of a test whose every case compiles programs of its own the short profile runs a few. They are named
where the test stands, and nothing is left out by cell: each property still meets the LSTM, the GRU
or the bare step, masked and whole.
"""

import collections
import itertools
import os

import jaxlib
import pytest
from hypothesis import Phase, settings

settings.register_profile(
    "short",
    derandomize=True,
    max_examples=6,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.register_profile("long", max_examples=200, deadline=None, print_blob=True)

# Nearly all of the short profile's time is compiling programs that run once or twice. Without
# LLVM's optimisation and MLIR's emitters compiling is a third; with one LLVM module for a program
# rather than as many as it has kernels, up to 32, it is 0.58 of that third.
# The long profile compiles as users do; in `.ci/run` so do `verify` and the demo.
QUICK = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if jaxlib.__version__.startswith("0.10."):  # XLA ends a process that gives it a flag it has not
    QUICK.append("--xla_cpu_use_fusion_emitters=false")


def short(**params):
    """The test is long but for its cases with these params; a set is any of its values.

    Written several times above a test, each names cases of its own.
    """
    return pytest.mark.short(**params)


def configure(config):
    """Called by pytest as it starts: the profile that is asked for."""
    profile = "short" if config.option.markexpr == "not long" else "long"
    settings.load_profile(profile)
    if profile == "short":
        os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *QUICK])


def mark_long_cases(config, items):
    """Marks as long every case that no `short` above its test names.

    A `short` that names no case is an error, unless single cases were asked for.
    """
    of_test = collections.defaultdict(list)
    for item in items:
        if any(item.iter_markers("short")):
            of_test[item.nodeid.partition("[")[0]].append(item)
    whole = not any("::" in arg for arg in config.args)
    for test, cases in of_test.items():
        for mark in cases[0].iter_markers("short"):
            if whole and not any(fits(case, mark) for case in cases):
                raise pytest.UsageError(f"{test}: short({mark.kwargs}) names none of its cases")
    for case in itertools.chain(*of_test.values()):
        if not any(fits(case, mark) for mark in case.iter_markers("short")):
            case.add_marker(pytest.mark.long)


def fits(case, mark):
    params = case.callspec.params
    return all(
        params[name] in wanted if isinstance(wanted, set) else params[name] == wanted
        for name, wanted in mark.kwargs.items()
    )
