"""Batches in parts: the two halves of a step against the whole, under every precision policy."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from sonew_compiled import passes
from sonew_compiled.compile import compile_training
from sonew_compiled.contract import BUCKET, EVAL_STEP, GRADIENTS, LEARNING_RATE, LOSS, TRAIN_STEP, UPDATE, UPDATE_COMMON
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.micro_batches import add_halves, micro_batches
from sonew_compiled.optimizer import optimizer_factory, statistics_dtype
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.runtime import (
    Dataset,
    Device,
    Program,
    TrainingState,
    TrainSettings,
    load_checkpoint,
    open_bundle,
    train,
)
from sonew_compiled.runtime.dtypes import as_dtype
from sonew_compiled.runtime.manifest import Manifest
from sonew_compiled.runtime.shards import Shards, divided, shards_of
from sonew_compiled.runtime.stepper import stepper_of
from sonew_compiled.runtime.workers import Alone
from sonew_compiled.trace import trace_training
from sonew_compiled.xla import compile_artifact

RATE = 3e-3
RNG = np.random.default_rng(0)
BATCHES = RNG.random((20, 12, 4), np.float32)


def relu_loss(params: Any, batch: Any) -> jax.Array:
    return jnp.mean((jax.nn.relu(batch["image"] @ params["w"]) @ params["w"].T - batch["image"]) ** 2)


def initial(key: jax.Array) -> Any:
    return {"w": jax.random.normal(key, (4, 6))}


def of_size(size: int) -> dict[str, jax.ShapeDtypeStruct]:
    return {"image": jax.ShapeDtypeStruct((size, 4), jnp.float32)}


def test_the_bucket_is_the_loss_and_then_the_gradients(parts_bundle: Path, cpu: Device) -> None:
    program = Program.load(open_bundle(parts_bundle), cpu)
    state = TrainingState.initial(program, seed=3)
    arrays = state.parameters()
    batch = {"image": BATCHES[0][:3]}
    rate = cpu.upload(np.array(RATE, np.float32))
    buffer = state.gradients(program.upload_batch(batch, function=GRADIENTS), rate)
    bucket = program.download(program.manifest.functions[GRADIENTS].outputs[0], buffer)

    def loss(w: Any) -> jax.Array:
        image = batch["image"]
        hidden = jnp.tanh(image @ w["params/inner"] + w["params/bias"])
        return jnp.mean((hidden @ w["params/outer"] - image) ** 2)

    value, gradients = jax.value_and_grad(loss)(arrays)
    want = np.zeros(88, np.float32)
    want[0] = value
    for start, name in ((16, "outer"), (48, "bias"), (64, "inner")):
        gradient = np.ravel(gradients[f"params/{name}"])
        want[start : start + gradient.size] = gradient
    np.testing.assert_allclose(bucket, want, rtol=1e-5, atol=1e-6)


def test_twenty_steps_are_those_of_the_whole_batch(parts_bundle: Path, cpu: Device) -> None:
    program = Program.load(open_bundle(parts_bundle), cpu)
    rate = cpu.upload(np.array(RATE, np.float32))
    whole, parts = (TrainingState.initial(program, seed=0) for _ in range(2))
    stepper = stepper_of(program, Alone())
    for image in BATCHES:
        one = whole.step(program.upload_batch({"image": image}), rate)
        other = stepper.step(parts, stepper.place({"image": image}), rate)
        assert other == pytest.approx(one, rel=1e-5)
    for name, array in whole.download().items():
        np.testing.assert_allclose(parts.download()[name], array, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["f32", "bf16-pure", "f16-mixed", "bf16-sr"])
def test_under_policies_the_halves_of_one_micro_batch_make_the_step(precision: str) -> None:
    policy = passes.precision_policy(precision)
    factory = optimizer_factory(optimizer_settings("adam", precision=precision))
    parts = micro_batches(of_size(6), 6, factory, "adam")
    with statistics_dtype(policy.state_dtype):
        text = trace_training(init=initial, loss=relu_loss, optimizer=factory, batch=parts.batch).text
    module = passes.parse(text)
    passes.run_pipeline(module, passes.pipeline(policy))
    add_halves(module, text, policy, parts)
    signatures = passes.signatures(module)
    names = {BUCKET, *(each.name for each in signatures[TRAIN_STEP].outputs)}
    assert {each.name for each in signatures[UPDATE].outputs} == names - {BUCKET}

    def call(name: str, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        alone = passes.from_portable_artifact(passes.to_portable_artifact(module))
        passes.run_pipeline(alone, [passes.parse_pass(f"select-export:name={name}")])
        inputs, outputs = (
            [jax.ShapeDtypeStruct(each.shape, as_dtype(each.dtype)) for each in values]
            for values in (signatures[name].inputs, signatures[name].outputs)
        )
        run = compile_artifact(passes.to_portable_artifact(alone), inputs, outputs, platform="cpu", quickly=True)
        results = run(*(given[each.name] for each in signatures[name].inputs))
        return dict(zip((each.name for each in signatures[name].outputs), map(np.asarray, results), strict=True))

    state = call("init", {"seed": np.array(1, np.int32)})
    given = {**state, "batch/image": BATCHES[0][:6], LEARNING_RATE: np.array(RATE, np.float32)}
    whole = call(TRAIN_STEP, given)
    halves = call(UPDATE, {**given, **call(GRADIENTS, given)})
    for name, array in whole.items():
        np.testing.assert_allclose(halves[name].astype(np.float32), array.astype(np.float32), rtol=1e-5, atol=1e-6)
    assert halves[LOSS].dtype == np.float32


def test_signals_are_rounded_for_the_exchange_and_the_loss_is_not() -> None:
    factory = optimizer_factory(optimizer_settings("sgd"))
    text = trace_training(init=initial, loss=relu_loss, optimizer=factory, batch=of_size(6)).text
    given = {"params/w": np.asarray(initial(jax.random.key(0))["w"]), "batch/image": BATCHES[0][:6]}
    buckets = []
    for exchange in ("f32", "bf16"):
        module = passes.parse(text)
        names = (*passes.pipeline(passes.precision_policy("f32"), micro_batches=2, exchange=exchange),)
        passes.run_pipeline(module, [*names, passes.parse_pass(f"select-export:name={GRADIENTS}")])
        specs = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in given.values()]
        result = [jax.ShapeDtypeStruct((40,), jnp.float32)]
        run = compile_artifact(passes.to_portable_artifact(module), specs, result, platform="cpu", quickly=True)
        buckets.append(np.asarray(run(*given.values())[0]))
    whole, short = buckets
    assert short[0] == whole[0]
    np.testing.assert_array_equal(short[1:], whole[1:].astype(ml_dtypes.bfloat16).astype(np.float32))
    assert (short[1:] != whole[1:]).any()


def test_a_run_in_parts_goes_on_with_the_same_bits(
    parts_bundle: Path, tiny_data: Dataset, cpu: Device, tmp_path: Path
) -> None:
    bundle = open_bundle(parts_bundle)
    settings = TrainSettings(epochs=2, learning_rate=RATE)
    whole = train(bundle, tiny_data, settings, cpu, output=tmp_path / "whole")
    stopped = TrainSettings(epochs=2, learning_rate=RATE, max_steps=5)
    train(bundle, tiny_data, stopped, cpu, output=tmp_path / "parts")
    parts = train(bundle, tiny_data, settings, cpu, output=tmp_path / "parts", resume=tmp_path / "parts")
    assert parts.train_loss == whole.train_loss
    one, other = (load_checkpoint(run.checkpoint, bundle.manifest).tensors for run in (whole, parts))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_the_manifest_says_what_the_parts_are(parts_bundle: Path) -> None:
    manifest = open_bundle(parts_bundle).manifest
    assert (manifest.batch_size, manifest.micro_batch_size, manifest.micro_batches) == (12, 3, 4)
    assert manifest.functions[GRADIENTS].outputs[0].shape == (88,)
    assert manifest.functions[EVAL_STEP].inputs[-1].shape == (12, 4)
    reads = dict(manifest.bucket_reads)
    assert reads.pop(UPDATE) == ((0, 1), (16, 40), (48, 54), (64, 88))
    assert reads.pop(UPDATE_COMMON) == ((0, 1), (48, 54))
    assert sorted(itertools.chain(*reads.values())) == [(16, 40), (64, 88)]
    text = manifest.to_json()
    for had, has, why in (
        ('"bucket"', '"barrel"', "'update' takes 'barrel'"),
        ('"gradients": {', '"predict": {', "there is no function gradients"),
        ("   3,\n", "   5,\n", "micro-batches of 5 examples do not make a batch of 12"),
        ('"update_1"', '"update_2"', "'update_2' is no part of update, or lacks the others"),
        ('"update_common"', '"update_0_"', "'update_0_' is no part of update, or lacks the others"),
        (
            '"bucket_reads": {',
            '"bucket_reads": {"step": [[0, 1]], ',
            r"'step' cannot read the ranges .*0, 1",
        ),
        ('"bucket_reads": {', '"bucket_reads": {"init": [[9]], ', "a range that is no pair of numbers"),
        (
            '"bucket_reads": {',
            '"bucket_reads": {"init": [[9, 90]], ',
            r"'init' cannot read the ranges .*9, 90",
        ),
    ):
        assert had in text
        with pytest.raises(SonewError, match=why):
            Manifest.from_json(text.replace(had, has), source="manifest.json")


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_state_is_divided_by_size(
    count: int, parts_bundle: Path, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Several(Alone):
        def __init__(self, rank: int) -> None:
            self.rank, self.count = rank, count

    program = Program.load(open_bundle(parts_bundle), cpu)
    # All need the loss and the small bias, and two workers have a matrix each.
    of_two = [[(0, 1), (48, 54), (64, 88)], [(0, 1), (16, 40), (48, 54)]]
    alone = [[(0, 1), (16, 40), (48, 54), (64, 88)]]
    of_three = [*of_two, [(0, 1), (48, 54)]]
    assert Shards(program, Several(0)).wanted == {1: alone, 2: of_two, 3: of_three, 4: None}[count]
    by_default = [shards_of(program, Several(0), asked=None, is_exchanged_elsewhere=each) for each in (False, True)]
    assert [each is not None for each in by_default] == [count in (2, 3), False]
    monkeypatch.setenv("OMPI_MCA_mpi_ft_enable", "1")
    assert shards_of(program, Several(0), asked=None, is_exchanged_elsewhere=False) is None
    held = [Shards(program, Several(rank)).held for rank in range(count)]
    moments = {f"optimizer/0/{moment}/{weight}" for moment in ("mu", "nu") for weight in ("inner", "outer")}
    assert set().union(*held) == {spec.name for spec in program.manifest.state}
    of_all = set.intersection(*held)
    assert {"params/inner", "params/outer", "params/bias", "optimizer/0/count"} <= of_all
    assert of_all & moments == (moments if count == 1 else set())
    # Two weights of one size: a third worker has the moments of none.
    assert sorted(len(each & moments) for each in held) == {1: [4], 2: [2, 2], 3: [0, 2, 2], 4: [0, 0, 2, 2]}[count]


def test_the_largest_part_that_is_left_goes_to_the_worker_with_least() -> None:
    sizes = {"a": (5, 1), "b": (4, 1), "c": (3, 1), "d": (2, 1), "e": (0, 7), "f": (0, 6)}
    assert divided(sizes, 2) == {"a": 0, "b": 1, "c": 1, "d": 0, "e": 0, "f": 1}


def test_what_is_updated_together_is_not_divided(parts_bundle: Path, cpu: Device) -> None:
    program = Program.load(open_bundle(parts_bundle), cpu)
    functions = {name: each for name, each in program.manifest.functions.items() if "update_" not in name}
    program.bundle = replace(program.bundle, manifest=replace(program.manifest, functions=functions))
    with pytest.raises(UsageError, match=r"--shard-state: adam of .* updates the tensors together, .*: leave it out"):
        Shards(program, Alone())


@pytest.mark.parametrize(("name", "parts"), [("full-adagrad", 0), ("soap", 0), ("shampoo", 2)])
def test_an_update_is_cut_where_tensors_are_computed_apart(name: str, parts: int) -> None:
    def two(key: jax.Array) -> Any:
        return {"w": jax.random.normal(key, (4, 6)), "v": jax.random.normal(key, (6, 4))}

    def loss(params: Any, batch: Any) -> jax.Array:
        return jnp.mean((batch["image"] @ params["w"] @ params["v"] - batch["image"]) ** 2)

    factory = optimizer_factory(optimizer_settings(name))
    module = passes.parse(trace_training(init=two, loss=loss, optimizer=factory, batch=of_size(6)).text)
    passes.run_pipeline(module, passes.pipeline(passes.precision_policy("f32"), micro_batches=2))
    made = passes.signatures(module)
    assert sum(each.startswith("update_") for each in made) == (parts + 1 if parts else 0)
    whole = {each.name for each in made[UPDATE].outputs}
    given = [each.name for part in made if part.startswith("update_") for each in made[part].outputs]
    assert not parts or (sorted(given) == sorted(whole))


def test_more_workers_than_micro_batches_are_refused(parts_bundle: Path, cpu: Device) -> None:
    class Five(Alone):
        count = 5

    program = Program.load(open_bundle(parts_bundle), cpu)
    with pytest.raises(
        UsageError, match=r"has 4 micro-batches, too few for 5 workers: .* a --micro-batch of 2 or less"
    ):
        stepper_of(program, Five())


def test_what_cannot_be_worked_on_in_parts_is_refused(tmp_path: Path) -> None:
    adam = optimizer_settings("adam")
    with pytest.raises(UsageError, match="--micro-batch is 5: give a number of examples of which the batch size, 12"):
        compile_training(relu_loss, initial, adam, of_size(12), output=tmp_path / "a", micro_batch=5)
    with pytest.raises(UsageError, match="--exchange bf16 applies to micro-batches only: give --micro-batch too"):
        compile_training(relu_loss, initial, adam, of_size(12), output=tmp_path / "c", exchange="bf16")
    for name in ("kfac", "eva", "kbfgs", "locoprop", "natural-gradient"):
        with pytest.raises(UsageError, match=f"{name} needs numbers of each example"):
            compile_training(
                relu_loss, initial, optimizer_settings(name), of_size(12), output=tmp_path / "b", micro_batch=6
            )
    assert not list(tmp_path.iterdir())
