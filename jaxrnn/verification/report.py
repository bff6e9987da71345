"""What a verification found: a `Check` for each block and reference, a `Report` of them all."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import jax

__all__ = ["Check", "Report", "Worst"]

# From the most telling to the least: a wrong gate makes every later family wrong too, so a report
# names the gate.
FAMILIES = (
    "gate derivative",
    "state Jacobian",
    "input Jacobian",
    "param Jacobian",
    "tangent",
    "adjoint identity",
    "float32 Jacobian",
    "float32 gate",
    "overflow",
)
FAILURES_SHOWN = 4  # of the failures, in print; all are in the report


@dataclass(frozen=True)
class Worst:
    """Where the largest error stands, enough to draw that case again with `redraw`.

    Attributes:
      input_size: D of the case.
      hidden_size: H of the case.
      scale: The standard deviation of its params.
      key: The words of the case's PRNG key.
      entry: The index into the block.
      got: The cell's derivative there.
      expected: The reference there.
    """

    input_size: int
    hidden_size: int
    scale: float
    key: tuple[int, ...]
    entry: tuple[int, ...]
    got: float
    expected: float

    def __str__(self) -> str:
        return (
            f"D={self.input_size} H={self.hidden_size} scale={self.scale:g} key={self.key} "
            f"entry={list(self.entry)}: got {self.got:.10g}, expected {self.expected:.10g}"
        )


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["error", "tolerance"],
    meta_fields=["family", "where", "reference", "worst"],
)
@dataclass(frozen=True)
class Check:
    """One derivative held against one reference.

    Attributes:
      error: The largest error found, in the measure that `verify` documents.
      tolerance: The largest error allowed.
      family: The kind of derivative, such as `state Jacobian`.
      where: The block or gate, such as `∂c/∂h₋` or `gate f: ∂c/∂u`.
      reference: What it was held against.
      worst: The case behind `error`; None where the error belongs to no single case.
    """

    error: float
    tolerance: float
    family: str
    where: str
    reference: str
    worst: Worst | None

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; NaN is not."""
        return bool(self.error <= self.tolerance)


@partial(jax.tree_util.register_dataclass, data_fields=["checks"], meta_fields=["cell", "cases"])
@dataclass(frozen=True)
class Report:
    """All checks of one cell. Prints as a table; a pytree whose leaves are errors and tolerances.

    Attributes:
      checks: A Check for every derivative and every reference.
      cell: The name of the cell.
      cases: The number of random cases, all shapes and scales together. Each is drawn once and used
        for every check. Cases that `verify` does not judge (overflow, autodiff beyond scale 10) are
        counted too.
    """

    checks: tuple[Check, ...]
    cell: str
    cases: int

    @property
    def passed(self) -> bool:
        """Whether there were checks and all of them passed."""
        # A report without checks verified nothing.
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def located(self) -> str:
        """What the failures point to: gates if any is wrong, else blocks, else all that failed."""
        gates = _unique(c.where for c in self.failures if c.family == "gate derivative")
        blocks = _unique(c.where for c in self.failures if c.family == "state Jacobian")
        # "float32 gate" of "gate n: …" is "float32 gate n: …".
        rest = (f"{c.family} {c.where}".replace("gate gate", "gate") for c in self.failures)
        return "; ".join(gates or blocks or _unique(rest))

    def __str__(self) -> str:
        head = f"{'':19}{'against':20}{'blocks':>7}{'error':>11}{'allowed':>11}"
        lines = [f"{self.cell}: {self.cases} cases", head]
        for (family, reference), checks in _grouped(self.checks).items():
            # Failed first: a ratio that is NaN would not come out as the largest.
            worst = max(checks, key=lambda c: (not c.passed, c.error / c.tolerance))
            lines.append(
                f"  {family:17}{reference:20}{len(checks):>7}{worst.error:>11.1e}"
                f"{worst.tolerance:>11.1e}  {'ok' if all(c.passed for c in checks) else 'FAILED'}"
            )
        if self.passed:
            return "\n".join([*lines, f"{self.cell}: passed"])
        lines.append(f"{self.cell}: FAILED in {self.located}")
        telling = sorted(self.failures, key=lambda c: FAMILIES.index(c.family))
        for check in telling[:FAILURES_SHOWN]:
            lines.append(f"  {check.family}, {check.where}, against {check.reference}:")
            lines.append(f"    error {check.error:.2e}, allowed {check.tolerance:.1e}")
            lines += [f"    {check.worst}"] if check.worst else []
        if len(telling) > FAILURES_SHOWN:
            lines.append(f"  … and {len(telling) - FAILURES_SHOWN} more in report.failures")
        return "\n".join(lines)


def _unique(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


def _grouped(checks: Iterable[Check]) -> dict[tuple[str, str], list[Check]]:
    groups: dict[tuple[str, str], list[Check]] = {}
    for check in sorted(checks, key=lambda c: FAMILIES.index(c.family)):
        groups.setdefault((check.family, check.reference), []).append(check)
    return groups
