"""A test whose worker ended is run once more: XLA's CPU client hangs once in about ten runs.

pytest-rerunfailures does that too, and asks over a socket about every test: 40 ms each.
"""

import pytest

ended: set[str] = set()


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem, report, sched):
    """A hook of pytest-xdist. What ends its worker twice has failed."""
    if crashitem not in ended:
        ended.add(crashitem)
        sched.mark_test_pending(crashitem)
        report.outcome = "rerun"
