"""A function in a process of its own, timed in turns with one in this process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType

from sonew_compiled.bench._apart import RunError, one_line
from sonew_compiled.bench._pairs import timed


class Elsewhere:
    """Calls a function in a new process, which waits between the calls. It is a context that ends the process.

    The runtime changes how its process treats freed memory. In the same process that would speed up the function with
    which the runtime is compared.
    """

    def __init__(self, make: Callable[[], Callable[[], object]]) -> None:
        """Starts the process and makes the function there.

        Args:
          make: returns the function; `pickle` sends `make` to the process.

        Raises:
          RunError: `make` raised, or the process died.
        """
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, make), daemon=True)
        self._process.start()
        there.close()
        self._answer()

    def __call__(self) -> float:
        """Calls the function once, and returns the seconds that it took there."""
        self._here.send(True)
        return self._answer()

    def __enter__(self) -> Elsewhere:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._here.close()
        self._process.join()

    def _answer(self) -> float:
        try:
            answer: float | str = self._here.recv()
        except EOFError:
            self._process.join()
            raise RunError(f"the process compared with ended with exit code {self._process.exitcode}") from None
        if isinstance(answer, str):
            raise RunError(answer)
        return answer


def _serve(there: Connection, make: Callable[[], Callable[[], object]]) -> None:
    try:
        thing = make()
        there.send(0.0)
        while there.recv():
            there.send(timed(thing))
    except EOFError:
        pass
    except Exception as error:
        there.send(one_line(error))
