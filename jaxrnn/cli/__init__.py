"""The command `jaxrnn`. Needs the extra: `pip install 'jaxrnn[cli]'`."""

import contextlib
import pathlib
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Literal

import jax

import jaxrnn
from jaxrnn.cli import watchdog
from jaxrnn.cli.bench import bench_command
from jaxrnn.cli.demo import demo_command
from jaxrnn.cli.diagnose import Options, diagnose_command
from jaxrnn.cli.verify import verify_command

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run a subcommand; exit 0 if all is well, 1 if a check failed, 2 on bad input.

    3 if no thread worked for a minute, twice: what was asked for on the command line is watched.
    """
    try:
        import tqdm  # noqa: F401
        import tyro
    except ImportError as error:
        sys.exit(f"jaxrnn: {error.name} is missing; pip install 'jaxrnn[cli]'")

    def watched() -> contextlib.AbstractContextManager[None]:
        if argv is None:
            return watchdog.watching(excused=computes_elsewhere)
        return contextlib.nullcontext()  # a program calls: its process is not ours to begin again

    def verify(
        cells: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
        cases: int = 32,
        seed: int = 0,
        details: bool = False,
    ) -> int:
        """Hold every closed form against references that know nothing of it.

        Args:
            cells: names of ours, or yours as `module:attribute`; all of ours by default.
            cases: random cases for each shape and scale.
            seed: of the random cases.
            details: print the whole table of each cell, not one line.
        """
        with watched():
            return verify_command(cells, cases, seed, details)

    def demo(
        out: pathlib.Path = pathlib.Path("jaxrnn-demo"), quick: bool = False, seed: int = 0
    ) -> int:
        """Train a tanh RNN and an LSTM on pixel-by-pixel digits and watch their gradients.

        Args:
            out: folder for the figures and summary.json.
            quick: 100 training steps instead of 2000.
            seed: of the weights and of the batches.
        """
        with watched():
            return demo_command(out, quick, seed)

    def diagnose(
        weights: pathlib.Path,
        data: pathlib.Path,
        layout: str | None = None,
        prefix: str | None = None,
        activation: str | None = None,
        lengths: pathlib.Path | None = None,
        batch_first: bool = False,
        chunk: int | None = None,
        out: pathlib.Path = pathlib.Path("jaxrnn-report"),
    ) -> int:
        """Say how the gradients of your trained net flow back through time, and what to do.

        Args:
            weights: .safetensors or .npz of torch, flax, haiku, equinox or keras.
            data: .npy of what the net reads: (T, B, D), or (T, D) for one example.
            layout: of the weights, where their names do not tell.
            prefix: of the names of the net's leaves, where there are several nets.
            activation: of an RNN, which its weights do not tell: tanh (assumed), relu, sigmoid,
                identity.
            lengths: .npy of integers (B,) where sequences are padded.
            batch_first: data is (B, T, D).
            chunk: examples at a time; by default from the sizes.
            out: folder for report.html and report.json.
        """
        options = Options(layout, prefix, activation, lengths, batch_first, chunk, out)
        with watched():
            return diagnose_command(weights, data, options)

    def bench(
        names: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
        out: pathlib.Path = pathlib.Path("jaxrnn-bench"),
        platform: Literal["cpu", "gpu", "tpu"] | None = None,
        quick: bool = False,
    ) -> int:
        """Time the library beside its peers and the limit of the machine, from a clone of it.

        Args:
            names: stack, bptt, transport, lyapunov, contributions, clipping, diagnose, long,
                bounds, regularizers, scaling; all of them by default.
            out: folder for the JSON of each; `python -m benchmarks.render --results` reads it.
            platform: of JAX; by default the one that JAX chooses.
            quick: one small size each, to see that all of them run.
        """
        return bench_command(names, out, platform, quick)

    commands = {"verify": verify, "demo": demo, "diagnose": diagnose, "bench": bench}
    try:
        code = tyro.extras.subcommand_cli_from_dict(
            commands, prog="jaxrnn", args=argv, description=jaxrnn.__doc__.splitlines()[0]
        )
    except (ValueError, TypeError, ImportError) as error:
        if not raised_here(error):
            raise
        print(f"jaxrnn: {error}", file=sys.stderr)
        code = 2
    sys.exit(code)


def computes_elsewhere() -> bool:
    """Whether JAX computes on an accelerator: while it does, every thread here may wait."""
    return jax.default_backend() != "cpu"


def raised_here(error: Exception) -> bool:
    """Whether the package itself refused something; what others raise keeps its traceback."""
    innermost = traceback.extract_tb(error.__traceback__)[-1].filename
    return pathlib.Path(innermost).is_relative_to(pathlib.Path(__file__).parent.parent)
