"""The passes, beyond lit's before/after tests: above all, that they keep the meaning of modules."""

import io
import json
import math
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iree import runtime as rt
from iree.compiler.tools.binaries import find_tool
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

from sonew_compiled import passes
from sonew_compiled.errors import UsageError
from sonew_compiled.optimizer._chain import Chain
from sonew_compiled.passes.shared.split_reductions import _factors

ADD = """
func.func public @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = stablehlo.add %x, %x : tensor<4xf32>
  return %0 : tensor<4xf32>
}
"""


def _trace(function: Callable[..., Any], *shapes: Sequence[int]) -> ir.Module:
    arguments = [jax.ShapeDtypeStruct(tuple(shape), jnp.float32) for shape in shapes]
    return jax.jit(function).lower(*arguments).compiler_ir("stablehlo")


def _container(**modules: ir.Module) -> ir.Module:
    texts = [passes.to_text(module).replace(f"@{_name(module)} ", f"@{name} ", 1) for name, module in modules.items()]
    return passes.parse("module {\n" + "".join(texts) + "}\n")


def _name(module: ir.Module) -> str:
    return str(ir.StringAttr(module.operation.attributes["sym_name"]).value)


def _evaluate(module: ir.Module, *arguments: np.ndarray) -> list[np.ndarray]:
    """Run `@main` with StableHLO's reference interpreter."""
    with module.context:
        results = stablehlo.eval_module(module, [_attribute(each) for each in arguments])
        return [np.array(list(each)).reshape(ir.ShapedType(each.type).shape) for each in results]


def _attribute(array: np.ndarray) -> ir.Attribute:
    if array.dtype == np.bool_:  # the layout of booleans in memory is internal to MLIR
        shape = "".join(f"{size}x" for size in array.shape)
        return ir.Attribute.parse(f"dense<{json.dumps(array.tolist())}> : tensor<{shape}i1>")
    return ir.DenseElementsAttr.get(array)


# ----- the pipeline


def test_dumps_every_stage(tmp_path: Path) -> None:
    module = _container(init=_trace(jnp.sin, (3,)))
    passes.run_pipeline(module, passes.PIPELINE, dump_dir=tmp_path / "dump")
    names = [f"{number:02}-{each.name}.mlir" for number, each in enumerate(passes.PIPELINE, 1)]
    assert sorted(each.name for each in (tmp_path / "dump").iterdir()) == ["00-input.mlir", *names]
    assert (tmp_path / "dump" / names[-1]).read_text() == passes.to_text(module)


def test_prints_after_the_passes_asked_for() -> None:
    stream = io.StringIO()
    chosen = [passes.parse_pass("legalize-chlo"), passes.parse_pass("strip-locations")]
    passes.run_pipeline(passes.parse(ADD), chosen, print_ir_after=["strip-locations"], stream=stream)
    assert stream.getvalue().startswith("// ----- after strip-locations -----\nmodule {")
    assert "legalize-chlo" not in stream.getvalue()
    passes.run_pipeline(passes.parse(ADD), chosen, print_ir_after=["all"], stream=stream)
    assert "after legalize-chlo" in stream.getvalue()


def test_refuses_to_print_after_an_unknown_pass() -> None:
    with pytest.raises(UsageError, match="no pass 'strip' to print after; the passes are: strip-locations, all"):
        passes.run_pipeline(passes.parse(ADD), [passes.parse_pass("strip-locations")], print_ir_after=["strip"])


def test_an_invalid_module_is_the_fault_of_the_pass() -> None:
    def drop_return(module: ir.Module) -> None:
        list(module.body.operations[0].operation.regions[0].blocks[0].operations)[-1].operation.erase()

    broken = passes.Pass(name="drop-return", summary="", description="", run=drop_return)
    with pytest.raises(AssertionError, match="pass drop-return made an invalid module"):
        passes.run_pipeline(passes.parse(ADD), [broken])


# ----- merge-exports


def test_merged_functions_compute_what_they_did() -> None:
    def first(x: jax.Array) -> jax.Array:
        return jnp.clip(x, 0, 1).sum()

    def second(x: jax.Array) -> jax.Array:
        return jnp.clip(x, -1, 0).sum()

    module = _container(first=_trace(first, (5,)), main=_trace(second, (5,)))
    passes.run_pipeline(module)
    x = np.linspace(-2, 2, 5, dtype=np.float32)
    np.testing.assert_allclose(_evaluate(module, x)[0], second(x))
    functions = [ir.StringAttr(each.attributes["sym_name"]).value for each in module.body.operations]
    assert functions == ["first", "first__clip", "main", "main__clip"]


def test_merge_needs_a_container() -> None:
    with pytest.raises(UsageError, match="needs a module that holds named modules"):
        passes.run_pipeline(passes.parse(ADD))


# ----- gather-shifts


@pytest.mark.parametrize("by", [-3, -1, 1, 2])
@pytest.mark.parametrize("columns", [1, 5])
def test_gathered_shifts_compute_what_they_did(columns: int, by: int) -> None:
    chain = Chain(rows=12, cols=columns)

    def shifted(x: jax.Array) -> jax.Array:
        return x + chain.shift(x * x, by, fill=0.5)

    module = _container(main=_trace(shifted, (12, columns)))
    gather = passes.parse_pass("gather-shifts:elements=1")
    passes.run_pipeline(module, [*passes.PIPELINE, gather])
    assert "stablehlo.gather" in passes.to_text(module)
    assert "stablehlo.concatenate" not in passes.to_text(module)
    x = np.random.default_rng(0).normal(size=(12, columns)).astype(np.float32)
    np.testing.assert_allclose(_evaluate(module, x)[0], shifted(x), rtol=1e-6)


# ----- strip-locations and the artifact


def _artifact_of(source: str, filename: str) -> tuple[bytes, str]:
    namespace: dict[str, Any] = {"jnp": jnp}
    exec(compile(source, filename, "exec"), namespace)
    module = _trace(namespace["f"], (4, 4), (4,))
    text = passes.to_text(module, locations=True)
    passes.run_pipeline(module, [each for each in passes.PIPELINE if each.name != "merge-exports"])
    return passes.to_portable_artifact(module), text


def test_where_the_source_lies_does_not_show() -> None:
    source = "def f(x, y):\n    return jnp.clip(x @ y, 0, 1)\n"
    here, located_here = _artifact_of(source, "/one/place.py")
    there, located_there = _artifact_of("\n\n# moved\n" + source, "/another/place.py")
    assert located_here != located_there
    assert here == there
    assert b"place.py" not in here


def test_artifact_keeps_the_module() -> None:
    module = _container(f=_trace(lambda x: x @ x, (3, 3)))
    passes.run_pipeline(module)
    before = passes.to_text(module)
    artifact = passes.to_portable_artifact(module)
    assert passes.to_text(module) == before
    assert passes.to_portable_artifact(passes.from_portable_artifact(artifact)) == artifact
    assert f"StableHLO_v{passes.stablehlo_version()}".encode() in artifact


@pytest.mark.parametrize(
    "function", [jax.lax.erf_inv, jax.lax.square, jax.lax.lgamma, jnp.arcsin, lambda x: jax.lax.top_k(x, 2)]
)
def test_what_jax_lowers_to_chlo_can_be_serialized(function: Callable[..., Any]) -> None:
    module = _container(f=_trace(function, (3, 4)))
    passes.run_pipeline(module)
    assert passes.to_portable_artifact(module)


def test_artifact_names_what_it_cannot_hold() -> None:
    module = passes.parse(
        "func.func @f(%x: tensor<f32>) -> tensor<f32> {\n"
        "  %0 = chlo.square %x : tensor<f32> -> tensor<f32>\n  return %0 : tensor<f32> }"
    )
    with pytest.raises(UsageError, match=r"holds StableHLO only; the module also has: chlo\.square"):
        passes.to_portable_artifact(module)


def test_refuses_bytes_that_are_no_artifact() -> None:
    with pytest.raises(UsageError, match="not a StableHLO portable artifact"):
        passes.from_portable_artifact(b"ML\xefR and no more")


# ----- split-reductions


_BODIES = {
    "sum": (jnp.sum, np.float32),
    "max": (jnp.max, np.float32),
    "min": (jnp.min, np.int32),
    "and": (jnp.all, np.bool_),
    "or": (jnp.any, np.bool_),
}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_split_reductions_compute_what_the_whole_did(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4), label="shape"))
    dims = data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1).map(sorted).map(tuple), label="dims")
    limit = data.draw(st.integers(2, 12), label="limit")
    reduce, dtype = _BODIES[data.draw(st.sampled_from(sorted(_BODIES)), label="body")]
    # Sums of small integers are exact in any order.
    values = np.random.default_rng(math.prod(shape)).integers(-4, 5, shape)
    x = (values > 2 if dtype is np.bool_ else values).astype(dtype)

    module = jax.jit(lambda x: reduce(x, axis=dims)).lower(jax.ShapeDtypeStruct(shape, dtype)).compiler_ir("stablehlo")
    (before,) = _evaluate(module, x)
    passes.run_pipeline(module, [passes.parse_pass(f"split-reductions:limit={limit}")])
    (after,) = _evaluate(module, x)
    np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(before, reduce(x, axis=dims))
    assert max(_reduced_elements(module)) <= limit


@settings(max_examples=15, deadline=None)
@given(size=st.integers(1, 150), limit=st.integers(2, 12), seed=st.integers(0, 9))
def test_split_argmax_finds_the_first_of_the_largest(size: int, limit: int, seed: int) -> None:
    x = np.random.default_rng(seed).integers(-3, 4, size).astype(np.float32)
    module = _trace(jnp.argmax, (size,))
    passes.run_pipeline(module, [passes.parse_pass(f"split-reductions:limit={limit}")])
    assert _evaluate(module, x)[0] == np.argmax(x)
    assert max(_reduced_elements(module)) <= limit


def _reduced_elements(module: ir.Module) -> list[int]:
    found: list[int] = [0]

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op.name == "stablehlo.reduce":
            shape = ir.ShapedType(op.operands[0].type).shape
            found.append(math.prod(shape[dim] for dim in ir.DenseI64ArrayAttr(op.attributes["dimensions"])))
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return found


@given(size=st.integers(3, 10_000_000), limit=st.integers(2, 8192))
def test_factors_cover_the_size_with_little_padding(size: int, limit: int) -> None:
    if size <= limit:
        return
    outer, inner = _factors(size, limit)
    assert 2 <= inner <= limit
    assert outer < size
    assert size <= outer * inner < size + inner
    assert outer <= limit or size > limit * limit


def test_split_keeps_its_limit_sane() -> None:
    with pytest.raises(UsageError, match="the limit is 1, but must be at least 2"):
        passes.run_pipeline(passes.parse(ADD), [passes.parse_pass("split-reductions:limit=1")])


# ----- wire-donation, and IREE's reading of it


DONATED = """
func.func public @main(
    %w: tensor<64x64xf32> {sonew.donate, sonew.name = "w"}, %m: tensor<64x64xf32> {sonew.donate, sonew.name = "m"},
    %a: tensor<64xf32> {sonew.donate, sonew.name = "a"}, %b: tensor<64xf32> {sonew.donate, sonew.name = "b"},
    %x: tensor<64x64xf32>)
    -> (tensor<64x64xf32> {sonew.name = "w"}, tensor<64x64xf32> {sonew.name = "m"}, tensor<64xf32> {sonew.name = "a"},
        tensor<64xf32> {sonew.name = "b"}, tensor<64x64xf32> {sonew.name = "y"}) {
  %half = stablehlo.constant dense<0.5> : tensor<64x64xf32>
  %decayed = stablehlo.multiply %m, %half : tensor<64x64xf32>
  %new_m = stablehlo.add %decayed, %x : tensor<64x64xf32>
  %new_w = stablehlo.add %w, %new_m : tensor<64x64xf32>
  %y = stablehlo.dot_general %new_w, %w, contracting_dims = [1] x [0]
    : (tensor<64x64xf32>, tensor<64x64xf32>) -> tensor<64x64xf32>
  %new_a = stablehlo.abs %b : tensor<64xf32>
  %new_b = stablehlo.multiply %a, %a : tensor<64xf32>
  return %new_w, %new_m, %new_a, %new_b, %y
    : tensor<64x64xf32>, tensor<64x64xf32>, tensor<64xf32>, tensor<64xf32>, tensor<64x64xf32>
}
"""


def test_donated_arguments_are_updated_in_place_only_where_that_is_right(tmp_path: Path) -> None:
    module = passes.parse(f"module @sonew {{ {DONATED} }}")
    passes.run_pipeline(module, [each for each in passes.PIPELINE if each.name != "merge-exports"])
    program = _main_by_iree(passes.to_portable_artifact(module), tmp_path)

    rng = np.random.default_rng(0)
    w, m, x = (rng.normal(size=(64, 64)).astype(np.float32) for _ in range(3))
    a, b = (rng.normal(size=64).astype(np.float32) for _ in range(2))
    buffers, results = program(w, m, a, b, x)

    new_m = m / 2 + x
    expected = [w + new_m, new_m, np.abs(b), a * a, (w + new_m) @ w]
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(buffers[1], results[1])  # m was overwritten
    for buffer, value in zip([buffers[0], *buffers[2:]], [w, a, b, x], strict=True):
        np.testing.assert_array_equal(buffer, value)  # and nothing else


Main = Callable[..., tuple[list[np.ndarray], list[np.ndarray]]]


def _main_by_iree(artifact: bytes, directory: Path) -> Main:
    """Compile `@main` of the artifact. A call returns the arguments' buffers after it, and the results."""
    (directory / "module.stablehlo").write_bytes(artifact)
    command = [
        find_tool("iree-compile"),
        directory / "module.stablehlo",
        "--iree-input-type=stablehlo",
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=vmvx",
        "-o",
        directory / "module.vmfb",
    ]
    subprocess.run(command, check=True, capture_output=True)
    config = rt.Config("local-sync")
    context = rt.SystemContext(config=config)
    context.add_vm_module(rt.VmModule.copy_buffer(context.instance, (directory / "module.vmfb").read_bytes()))

    def call(*arguments: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        buffers = [rt.asdevicearray(config.device, each) for each in arguments]
        results = context.modules.sonew.main(*buffers)
        return [each.to_host().copy() for each in buffers], [each.to_host().copy() for each in results]

    return call
