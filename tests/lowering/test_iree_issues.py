"""IREE still has the faults that passes work around; `iree/` has a module for each. If a test fails, a pass may go.

The faults and their passes are listed in docs/internals/iree-issues.md.
"""

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from iree import runtime as rt

from sonew_compiled import passes
from sonew_compiled.lowering.targets import iree_compile, resolve_target

MODULES = Path(__file__).parent / "iree"
NUMBERS = np.array([0.3, -0.2, 0.9, 0.1], np.float32)
OTHERS = np.array([0.5, 0.7, -0.1, 0.2], np.float32)

Main = Callable[..., tuple[list[np.ndarray], list[np.ndarray]]]


def _compiled(name: str, mended: Sequence[str] = (), *, phase: str = "end") -> subprocess.CompletedProcess[bytes]:
    """A module after these passes, compiled for processors up to a phase."""
    module = passes.parse((MODULES / f"{name}.mlir").read_text())
    passes.run_pipeline(module, [passes.parse_pass(each) for each in mended])
    command = [
        iree_compile(),
        "-",
        "--iree-input-type=stablehlo",
        *resolve_target("cpu").flags,
        f"--compile-to={phase}",
    ]
    return subprocess.run(command, input=passes.to_bytes(module), capture_output=True, check=False)


def _main(name: str, mended: Sequence[str] = ()) -> Main:
    """The module's `main`, which returns its arguments' buffers after the call, and the results."""
    config = rt.Config(device=rt.get_device("local-task"))
    context = rt.SystemContext(config=config)
    context.add_vm_module(rt.VmModule.copy_buffer(context.instance, _compiled(name, mended).stdout))

    def call(*arguments: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
        buffers = [rt.asdevicearray(config.device, np.array(each, order="C")) for each in arguments]
        results = context.modules.sonew.main(*buffers)
        results = results if isinstance(results, Sequence) else [results]
        return [each.to_host().copy() for each in buffers], [each.to_host().copy() for each in results]

    return call


def test_a_sorted_argument_is_overwritten() -> None:
    (argument,), _ = _main("argument_sorted")(NUMBERS)
    np.testing.assert_array_equal(argument, np.sort(NUMBERS))
    (argument,), (result,) = _main("argument_sorted", ["own-operands"])(NUMBERS)
    np.testing.assert_array_equal(argument, NUMBERS)
    np.testing.assert_array_equal(result, np.sort(NUMBERS))


def test_a_second_sort_of_indices_begins_with_the_first() -> None:
    wanted = [np.argsort(-NUMBERS), np.argsort(-OTHERS)]
    _, wrong = _main("indices_sorted_twice")(NUMBERS, OTHERS)
    assert any(not np.array_equal(got, want) for got, want in zip(wrong, wanted, strict=True))
    _, right = _main("indices_sorted_twice", ["own-operands"])(NUMBERS, OTHERS)
    np.testing.assert_array_equal(right, wanted)


def test_the_last_of_three_updates_runs_beside_the_first() -> None:
    def together(*mended: str) -> int:
        """The most updates, each of a thousand numbers, that may run side by side."""
        streams = _compiled("updated_thrice", mended, phase="stream").stdout.decode()
        regions = streams.split("stream.cmd.concurrent {")[1:]
        return max(len(re.findall(r"cmd\.dispatch .*_1000", region.split("\n      }")[0])) for region in regions)

    assert together() == 3
    assert together("own-operands") == 2
    x, y = np.linspace(-1, 1, 2000, dtype=np.float32), np.linspace(-1, 1, 1000, dtype=np.float32)
    _, (updated,) = _main("updated_thrice", ["own-operands"])(x, y, np.ones((1000, 1000), np.float32))
    np.testing.assert_allclose(updated, np.concatenate([np.tanh(y), np.cos(y)]), rtol=1e-5, atol=1e-6)


def test_a_branch_frees_what_it_hands_through() -> None:
    x = np.linspace(-1, 1, 15, dtype=np.float32)
    wanted = np.cos(np.tanh(x)) * np.tanh(x)

    def is_wrong(main: Main) -> bool:
        try:
            return not np.allclose(main(x, np.array(1, np.int32))[1][0], wanted, rtol=1e-4)
        except RuntimeError:  # "transient buffer has not been committed"
            return True

    faulty, mended = _main("branch_frees_outside_value"), _main("branch_frees_outside_value", ["fence-regions"])
    assert any(is_wrong(faulty) for _ in range(300))
    assert not any(is_wrong(mended) for _ in range(300))


@pytest.mark.parametrize(("name", "size"), [("loop_unread_argument", 4), ("loop_overwritten_argument", 1)])
def test_an_unread_argument_of_a_loop_crashes_the_compiler(name: str, size: int) -> None:
    assert _compiled(name).returncode
    arguments = NUMBERS[:size], OTHERS[:size]
    _, (last, before) = _main(name, ["fence-regions"])(np.array(3, np.int32), *arguments)
    np.testing.assert_allclose(before, np.sin(np.sin(arguments[0])), rtol=1e-5)
    np.testing.assert_allclose(last, np.sin(before), rtol=1e-5)
