"""`jaxrnn bench`."""

import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence

__all__ = ["BENCHMARKS", "bench_command"]

# Name ↦ its runs: the module in benchmarks/, the ending of its JSON file, its own arguments.
BENCHMARKS: dict[str, tuple[tuple[str, str, tuple[str, ...]], ...]] = {
    "stack": (
        ("jacobian_stack", "_kept", ("--pages", "kept")),
        ("jacobian_stack", "_fresh", ("--pages", "fresh")),
    ),
    "bptt": (("bptt", "", ()),),
    "gated": (("gated", "", ()),),
    "transport": (("transport", "", ()),),
    "lyapunov": (("lyapunov", "", ()),),
    "contributions": (("contributions", "", ()),),
    "clipping": (("clipping", "", ()),),
    "diagnose": (("diagnosis", "", ()),),
    "long": (("long_sequence", "", ()),),
    "bounds": (("bounds", "", ()),),
    "regularizers": (("regularizers", "", ()),),
    "scaling": (("scaling", "", ()),),
    "constants": (("constants", "", ()),),
}


def bench_command(
    names: Sequence[str], out: pathlib.Path, platform: str | None, quick: bool
) -> int:
    """Run benchmarks one after the other; 0 if all ended well.

    Each has a process of its own: what ran before leaves the allocator in a state that changes
    times (docs/performance.md).
    """
    for name in names:
        if name not in BENCHMARKS:
            raise ValueError(f"names: expected some of {', '.join(BENCHMARKS)}, got {name!r}")
    root = pathlib.Path.cwd()
    if not (root / "benchmarks" / "timing.py").exists():
        raise ValueError(
            f"jaxrnn bench: expected to be run in a clone of the repository, whose benchmarks/ it "
            f"runs, got {root}"
        )
    suffix = platform or found_platform()
    environment = os.environ | ({"JAX_PLATFORMS": platform} if platform else {})
    runs = [(name, run) for name in names or BENCHMARKS for run in BENCHMARKS[name]]
    failed = []
    began = time.perf_counter()
    for done, (name, (module, ending, given)) in enumerate(runs):
        print(f"\n[{done + 1}/{len(runs)}, {time.perf_counter() - began:.0f} s] {name}", flush=True)
        path = out.resolve() / f"{module}_{suffix}{ending}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", f"benchmarks.{module}", "--out", str(path), *given]
        if subprocess.run([*command, *["--quick"] * quick], cwd=root, env=environment).returncode:
            failed.append(name)
    took = time.perf_counter() - began
    print(f"\n{len(runs) - len(failed)} of {len(runs)} in {took:.0f} s; JSON in {out}/")
    if failed:
        print(f"FAILED: {', '.join(failed)}")
    return int(bool(failed))


def found_platform() -> str:
    """The platform that JAX chooses by itself."""
    import jax

    return jax.devices()[0].platform
