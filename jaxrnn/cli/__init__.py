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
    """Run a subcommand and exit.

    The exit code is 0 if all went well, 1 if a check or a benchmark failed, 2 for bad input, and 3
    if no thread has worked for a minute, twice: see `jaxrnn.cli.watchdog`.

    Args:
      argv: The arguments; None for those of the command line. Only these are watched.
    """
    # The commands stand in here because tyro reads their signatures and docstrings, and belongs to
    # an extra that may be missing.
    try:
        import tqdm  # noqa: F401
        import tyro
    except ImportError as error:
        sys.exit(f"jaxrnn: {error.name} is missing; pip install 'jaxrnn[cli]'")

    def watched() -> contextlib.AbstractContextManager[None]:
        if argv is None:
            return watchdog.watching(excused=computes_elsewhere)
        return contextlib.nullcontext()  # a program calls: its process is not ours to start again

    def verify(
        cells: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
        cases: int = 32,
        seed: int = 0,
        details: bool = False,
    ) -> int:
        """Compare every closed form of a cell with independent references.

        Args:
          cells: names of built-in cells, or your own as `module:attribute`; by default all
            built-in ones.
          cases: number of random cases for each shape and scale.
          seed: seed of the random cases.
          details: print the whole table of each cell instead of one line.
        """
        with watched():
            return verify_command(cells, cases, seed, details)

    def demo(
        out: pathlib.Path = pathlib.Path("jaxrnn-demo"), quick: bool = False, seed: int = 0
    ) -> int:
        """Train a tanh RNN and an LSTM on pixel-by-pixel digits and measure their gradients.

        Args:
          out: folder for the figures, summary.json and the report.
          quick: 100 training steps instead of 2000.
          seed: seed of the weights and of the batches.
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
        reach: float = 0.5,
        out: pathlib.Path = pathlib.Path("jaxrnn-report"),
    ) -> int:
        """Say how the gradients of your trained net flow back through time, and what to do.

        Args:
          weights: .safetensors or .npz file with weights of torch, flax, haiku, equinox or keras.
          data: .npy file with the inputs of the net: (T, B, D), or (T, D) for one example.
          layout: layout of the weights, if their names do not tell: torch, flax-linen, flax-nnx,
            haiku, equinox or keras.
          prefix: prefix of the names of the weights, if the file has several nets.
          activation: activation of an RNN, which its weights do not tell: tanh, relu, sigmoid or
            identity; tanh by default, haiku's is relu.
          lengths: .npy file with integers (B,), the lengths of padded sequences.
          batch_first: the data is (B, T, D).
          chunk: number of examples taken at a time; by default chosen from the sizes.
          reach: the share of a sequence that a gradient has to reach, in (0, 1].
          out: folder for report.html and report.json.
        """
        options = Options(layout, prefix, activation, lengths, batch_first, chunk, reach, out)
        with watched():
            return diagnose_command(weights, data, options)

    def bench(
        names: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
        out: pathlib.Path = pathlib.Path("jaxrnn-bench"),
        platform: Literal["cpu", "gpu", "tpu"] | None = None,
        quick: bool = False,
    ) -> int:
        """Time the library beside its peers and the limit of the machine; run it in a clone.

        Args:
          names: names of benchmarks: stack, bptt, transport, lyapunov, contributions, clipping,
            diagnose, long, bounds, regularizers, scaling; all of them by default.
          out: folder for their JSON files; `python -m benchmarks.render --results` reads it.
          platform: platform of JAX; by default the one that JAX chooses.
          quick: one small size for each, to see that all of them run.
        """
        # Not watched: this process waits for others, and their CPU time is not its own.
        return bench_command(names, out, platform, quick)

    commands = {"verify": verify, "demo": demo, "diagnose": diagnose, "bench": bench}
    try:
        code = tyro.extras.subcommand_cli_from_dict(
            commands, prog="jaxrnn", args=argv, description=jaxrnn.__doc__.splitlines()[0]
        )
    # One line for what the package refuses. An error of somebody else's code is no bad input.
    except (ValueError, TypeError, ImportError) as error:
        if not raised_here(error):
            raise
        print(f"jaxrnn: {error}", file=sys.stderr)
        code = 2
    sys.exit(code)


def computes_elsewhere() -> bool:
    """Whether JAX computes on an accelerator; while it does, every thread here may wait."""
    return jax.default_backend() != "cpu"


def raised_here(error: Exception) -> bool:
    """Whether the package itself raised an error; what others raise keeps its traceback."""
    innermost = traceback.extract_tb(error.__traceback__)[-1].filename
    # By folders, not as strings: another package may have a name that begins like this one.
    return pathlib.Path(innermost).is_relative_to(pathlib.Path(__file__).parent.parent)
