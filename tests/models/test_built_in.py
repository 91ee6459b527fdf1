"""The built-in models: their sizes, and that their losses are what they say."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sonew_compiled.bench.models import BATCHES
from sonew_compiled.cli._options import MODELS
from sonew_compiled.models import load_model
from sonew_compiled.models._load import _BUILT_IN
from sonew_compiled.models.transformers import gpt_logits

# The parameters, and the loss of scores that are all equal.
SIZES = {
    "autoencoder": (2_837_314, None),
    "autoencoder-small": (1_630_814, None),
    "classifier": (20_490, np.log(10)),
    "resnet18": (701_178, np.log(10)),
    "gpt-small": (834_304, np.log(256)),
    "vit-small": (803_082, np.log(10)),
}


def test_the_command_line_names_them_all() -> None:
    assert tuple(_BUILT_IN) == MODELS == tuple(SIZES)
    assert BATCHES.keys() <= SIZES.keys()


@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_losses(name: str) -> None:
    model, (size, of_equal_scores) = load_model(name), SIZES[name]
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert sum(each.size for each in jax.tree.leaves(params)) == size
    if of_equal_scores is not None:
        zeros = jax.tree.map(lambda each: jnp.zeros(each.shape, each.dtype), params)
        rng = np.random.default_rng(0)
        batch = {
            field: jnp.asarray(rng.integers(0, 10, each.shape) if each.dtype == jnp.int32 else rng.random(each.shape))
            for field, each in model.batch(2).items()
        }
        np.testing.assert_allclose(model.loss(zeros, batch), of_equal_scores, rtol=1e-5)
        if "label" in batch:
            assert model.predict is not None
            np.testing.assert_allclose(model.predict(zeros, batch), np.full((2, 10), 0.1), rtol=1e-6)
        if "tokens" in batch:
            assert model.predict is not None
            np.testing.assert_allclose(model.predict(zeros, batch), np.full((2, 64, 256), 1 / 256), rtol=1e-6)


def test_gpt_reads_no_later_bytes() -> None:
    model = load_model("gpt-small")
    params = model.init(jax.random.key(0))
    tokens = jnp.arange(12).reshape(1, 12)

    def scores(tokens: Any) -> Any:
        return gpt_logits(params, tokens)

    changed = tokens.at[0, 8].set(99)
    before, after = scores(tokens), scores(changed)
    np.testing.assert_array_equal(before[:, :8], after[:, :8])
    assert float(jnp.abs(before[:, 8:] - after[:, 8:]).min(axis=-1).max()) > 0
