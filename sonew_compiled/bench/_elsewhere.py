"""A thing that is timed in a process of its own, in turns with one here."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType

from sonew_compiled.bench._apart import RunError, one_line
from sonew_compiled.bench._pairs import timed


class Elsewhere:
    """Calls a thing in a new process, which waits between the calls; a context that ends the process.

    The runtime changes how its process treats freed memory, which would speed up what it is compared with.
    """

    def __init__(self, make: Callable[[], Callable[[], object]]) -> None:
        """Starts the process and makes the thing there.

        Args:
          make: gives the thing; it is sent to the process by `pickle`.

        Raises:
          RunError: it raised, or the process died.
        """
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, make), daemon=True)
        self._process.start()
        there.close()
        self._answer()

    def __call__(self) -> float:
        """Calls the thing once; the seconds that it took there."""
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
