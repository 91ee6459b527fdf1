"""What a model measures of both splits: metrics, losses of whole batches, units, and predictions that are trees."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sonew_compiled import UsageError, compile_training
from sonew_compiled.check._compare import difference
from sonew_compiled.model_functions import ModelFunctions
from sonew_compiled.models import classifier
from sonew_compiled.runtime import (
    Program,
    TrainingState,
    bind,
    evaluate_all,
    load_checkpoint,
    open_bundle,
    open_device,
    predict,
    read_metrics,
)
from sonew_compiled.trace import trace_training

SIZE, WORDS = 8, 5


def batch(size: int) -> Any:
    """Sentences of words, of which some are masked, and a weight of each: fields of any dtype, some in another dict."""
    return {
        "words": jax.ShapeDtypeStruct((size, WORDS), jnp.int32),
        "about": {
            "mask": jax.ShapeDtypeStruct((size, WORDS), jnp.bool_),
            "weight": jax.ShapeDtypeStruct((size,), jnp.float32),
        },
    }


def init(key: jax.Array) -> Any:
    embedding, out = jax.random.split(key)
    return {"embedding": jax.random.normal(embedding, (7, 4)), "out": jax.random.normal(out, (4, 7))}


def scores(params: Any, batch: Any) -> jax.Array:
    """Of the next word, (batch, WORDS - 1, 7)."""
    return params["embedding"][batch["words"][:, :-1]] @ params["out"]


def loss(params: Any, batch: Any) -> jax.Array:
    each = optax.softmax_cross_entropy_with_integer_labels(scores(params, batch), batch["words"][:, 1:])
    return jnp.mean(batch["about"]["weight"] * jnp.sum(jnp.where(batch["about"]["mask"][:, 1:], each, 0), axis=1))


def metrics(params: Any, batch: Any) -> Any:
    right = jnp.argmax(scores(params, batch), axis=-1) == batch["words"][:, 1:]
    mask = batch["about"]["mask"][:, 1:]
    return {"accuracy": (jnp.sum(right & mask), jnp.sum(mask)), "heavy": batch["about"]["weight"] > 0.5}


def predictions(params: Any, batch: Any) -> Any:
    found = scores(params, batch)
    return {"best": (jnp.argmax(found, axis=-1), jnp.max(found, axis=-1)), "all": found}


MODEL: dict[str, Any] = {"init": init, "loss": loss, "metrics": metrics, "predict": predictions}


def examples(count: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "words": rng.integers(0, 7, (count, WORDS)),
        "about/mask": rng.random((count, WORDS)) < 0.6,
        "about/weight": rng.random(count).astype(np.float32),
    }


def tree(fields: dict[str, np.ndarray]) -> Any:
    return {"words": fields["words"], "about": {name: fields[f"about/{name}"] for name in ("mask", "weight")}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, compared with JAX before it was written, and data that make no whole batches."""
    path = tmp_path_factory.mktemp("metrics")
    steps: list[str] = []
    compile_training(
        **MODEL,
        optimizer=optax.adam,
        batch=batch(SIZE),
        learning_rate=0.05,
        schedule="constant",
        unit="nats a sentence",
        output=path / "words.bundle",
        progress=steps.append,
    )
    assert steps[-1] == "check cpu against JAX"
    splits = {"train": examples(19, 0), "test": examples(13, 1)}
    np.savez(path / "words.npz", **{f"{s}_{name}": array for s, each in splits.items() for name, array in each.items()})
    return path


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder as the current one; what a test writes goes to `tmp_path`."""
    monkeypatch.chdir(folder)
    return tmp_path


def test_run_and_eval_report_both_splits(here: Path, sonew: Callable[..., Any]) -> None:
    ran = sonew("run", "words.bundle", "--data", "words.npz", "--epochs", 3, "-o", here / "run", "--json")
    assert ran.code == 0, ran.err
    evaluated = sonew("eval", "words.bundle", "--checkpoint", here / "run", "--json")
    opened = open_bundle(Path("words.bundle"))
    tensors = load_checkpoint(here / "run", opened.manifest).tensors
    params = {name: tensors[f"params/{name}"] for name in ("embedding", "out")}
    assert opened.manifest.unit == "nats a sentence"
    values = {}
    for split, fields in (("train", examples(19, 0)), ("test", examples(13, 1))):
        mask = fields["about/mask"][:, 1:]
        right = np.argmax(scores(params, tree(fields)), axis=-1) == fields["words"][:, 1:]
        values[f"{split}_accuracy"] = (right & mask).sum() / mask.sum()
        values[f"{split}_heavy"] = (fields["about/weight"] > 0.5).mean()
        values[f"{split}_loss"] = float(loss(params, tree(fields)))
    for result in (ran, evaluated):
        assert {name: result.json[name] for name in values} == pytest.approx(values, rel=1e-5)
        assert (
            f"test loss {values['test_loss']:.4f} nats a sentence, train accuracy {values['train_accuracy']:.4f}"
            in result.err
        )
    lines = [json.loads(line) for line in (here / "run/metrics.jsonl").read_text().splitlines()]
    assert lines[-1] == pytest.approx({"step": 6, **values}, rel=1e-5)
    assert [row["epoch"] for row in read_metrics(here / "run")] == [1, 2, 3]


def test_a_run_that_goes_on_has_one_line_of_its_end(here: Path, sonew: Callable[..., Any]) -> None:
    sonew("run", "words.bundle", "--data", "words.npz", "--epochs", 2, "--max-steps", 2, "-o", here / "run")
    assert sonew("run", "--resume", here / "run", "words.bundle").code == 0
    lines = [json.loads(line) for line in (here / "run/metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], "train_accuracy" in line) for line in lines] == [
        (2, False),
        (4, False),
        (4, True),
    ]


def test_predictions_are_named_by_their_paths(here: Path) -> None:
    program = Program.load(open_bundle(Path("words.bundle")), open_device("local-sync"))
    state = TrainingState.initial(program, seed=3)
    fields = {spec.name: spec for spec in program.manifest.batch}
    given = {name: array.astype(fields[name].dtype) for name, array in examples(SIZE, 2).items()}
    made = predict(program, state.buffers, {name: given[name] for name in fields})
    params = {name.removeprefix("params/"): array for name, array in state.parameters().items()}
    expected = predictions(params, tree(given))
    assert isinstance(made, dict)
    assert sorted(made) == ["all", "best/0", "best/1"]
    np.testing.assert_array_equal(made["best/0"], expected["best"][0])
    np.testing.assert_allclose(made["best/1"], expected["best"][1], rtol=1e-5)
    np.testing.assert_allclose(made["all"], expected["all"], rtol=1e-4, atol=1e-5)


PAIRS = {"x": jax.ShapeDtypeStruct((4, 6), jnp.float32)}


def similarities(params: Any, batch: Any) -> jax.Array:
    x = batch["x"] @ params
    return x[:, :2] @ x[:, 2:].T


def contrastive(params: Any, batch: Any) -> jax.Array:
    """Of the batch's examples, each is to be the nearest to itself: no mean of losses of single examples."""
    found = similarities(params, batch)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(found, jnp.arange(found.shape[0])))


def retrieval(params: Any, batch: Any) -> Any:
    found = similarities(params, batch)
    right = jnp.argmax(found, axis=-1) == jnp.arange(found.shape[0])
    return {"first": right, "large": (jnp.sum(found > 1), found.size)}


def test_a_loss_of_whole_batches_is_evaluated_on_them(
    tmp_path: Path, sonew: Callable[..., Any], refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given: dict[str, Any] = {"init": lambda key: jax.random.normal(key, (6, 4)), "loss": contrastive}
    compile_training(
        **given, metrics=retrieval, per_example=False, optimizer=optax.sgd, batch=PAIRS, learning_rate=0.01, output="b"
    )
    x = np.random.default_rng(0).normal(size=(21, 6)).astype(np.float32)
    np.savez("pairs.npz", train_x=x[:10], test_x=x[10:])
    ran = sonew("run", "b", "--data", "pairs.npz", "--epochs", 1, "--json")
    assert ran.code == 0, ran.err
    assert "5 examples left over from whole batches" in ran.err
    opened = open_bundle(Path("b"))
    params = load_checkpoint("sonew-run", opened.manifest).tensors["params"]
    whole = x[10:18].reshape(2, 4, 6)
    assert ran.json["test_loss"] == pytest.approx(
        np.mean([contrastive(params, {"x": each}) for each in whole]), rel=1e-5
    )
    measured = [retrieval(params, {"x": each}) for each in whole]
    assert ran.json["test_first"] == np.mean([each["first"] for each in measured])
    assert ran.json["test_large"] == sum(int(each["large"][0]) for each in measured) / 32
    few = bind({"x": x[:3]}, opened.manifest.batch)
    program = Program.load(opened, open_device("local-sync"))
    state = TrainingState.initial(program, seed=0)
    assert "a split of 3 examples, and the loss of this model is one of whole batches of 4" in refusal(
        UsageError, lambda: evaluate_all(program, state.buffers, few)
    )
    message = refusal(
        UsageError,
        lambda: compile_training(
            **given, per_example=False, micro_batch=2, optimizer=optax.sgd, batch=PAIRS, learning_rate=0.1, output="c"
        ),
    )
    assert message == "the loss is of whole batches (per_example=False); leave out --micro-batch"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda p, b: jnp.ones(1), "metrics gives ''; it must give a dict by names"),
        (lambda p, b: {"loss": jnp.ones(1)}, "metrics gives 'loss'"),
        (lambda p, b: {"a/b": jnp.ones(1)}, "metrics gives 'a/b'"),
        (
            lambda p, b: {"a": jnp.ones(2)},
            "metrics gives a as float32[2]; give one number an example, or (sum, count) of the batch",
        ),
        (lambda p, b: {"a": (jnp.ones(2), 1)}, "metrics gives a as float32[2]; "),
        (lambda p, b: {"a": "high"}, "metrics gives a as 'high'; "),
        (lambda p, b: {"a": jnp.ones(1, "complex64")}, "metrics gives a as complex64[1]; "),
    ],
)
def test_what_is_no_metric_is_refused(given: Any, said: str, refusal: Callable[..., str]) -> None:
    traced = {"init": init, "loss": loss, "metrics": given, "optimizer": optax.sgd, "batch": batch(4)}
    assert said in refusal(UsageError, lambda: trace_training(**traced))


def test_metrics_take_no_key() -> None:
    def drawing(params: Any, batch: Any, *, rng: jax.Array) -> Any:
        return {"a": jax.random.normal(rng)}

    with pytest.raises(UsageError, match="metrics takes the keyword rng; it may take state"):
        ModelFunctions(init=init, loss=loss, metrics=drawing)


def test_an_example_in_twenty_may_be_right_or_wrong() -> None:
    """Whether it is can hang on a rounding."""
    right = np.zeros(40, np.float32)

    def still() -> np.ndarray:
        return np.zeros(40, np.float32)

    for wrong, far in ((0, False), (2, False), (3, True)):
        got = right.copy()
        got[:wrong] = 1
        assert (difference(got, right, still, choices=0.05) is not None) == far
    assert difference(np.ones(1, np.float32), right[:1], lambda: right[:1], choices=0.05) is not None


def test_the_classifier_tells_its_accuracy() -> None:
    params = classifier.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    given = {"image": rng.random((30, 28, 28, 1), np.float32), "label": rng.integers(0, 10, 30)}
    assert classifier.metrics is not None
    assert classifier.predict is not None
    best = np.argmax(classifier.predict(params, given), axis=-1)
    np.testing.assert_array_equal(classifier.metrics(params, given)["accuracy"], best == given["label"])
    assert classifier.unit == "nats an image"
