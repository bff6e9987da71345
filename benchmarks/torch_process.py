"""torch in a process of its own.

Beside XLA's threads torch's may wait for a core that the others hold without using it: a GRU
step at B = 1 was seen to take 15 s in place of 5 ms. Apart, either runs while the other sleeps.
"""

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jax import Array

from benchmarks import peers

__all__ = ["TorchProcess"]


class TorchProcess:
    """A context whose `clock` gives functions that run a step of torch and tell its seconds."""

    def __init__(self, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, end = context.Pipe()
        self.process = context.Process(target=_serve, args=(end, threads), daemon=True)

    def __enter__(self) -> "TorchProcess":
        self.process.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.connection.send(None)
        self.process.join(timeout=30)
        if self.process.is_alive():
            self.process.kill()

    def clock(self, kind: str, params: Any, xs: Array, v: Array) -> Callable[[], float]:
        """A step of torch's layer on these arrays, as a function of nothing that gives seconds.

        Only the latest one is alive.
        """
        fields = {name: np.array(leaf) for name, leaf in params._asdict().items()}
        self._ask((kind, fields, np.array(xs), np.array(v)))
        return lambda: self._ask("step")

    def _ask(self, what: Any) -> Any:
        self.connection.send(what)
        answer = self.connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(connection: Any, threads: int) -> None:
    peers.configure_torch(threads)
    run: Any = None
    while (request := connection.recv()) is not None:
        try:
            if request == "step":
                start = time.perf_counter()
                run()
                connection.send(time.perf_counter() - start)
            else:
                kind, fields, xs, v = request
                run = peers.torch_peer(kind, peers.PARAMS[kind](**fields), xs, v)
                connection.send(None)
        except Exception as error:
            connection.send(error)
