"""Every initialiser, draws from every distribution, and every optimizer of optax that keeps a state."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import optax
import pytest
from agreement.case import Case
from agreement.rows import Table, row
from optax import contrib

N = jax.nn.initializers
R = jax.random


def initial(init) -> Case:
    """A row whose parameters are `init`'s, which may be of any dtype; its step, which nobody calls, does nothing."""
    return row(lambda p, b: p["z"], start_of(init), optimizer=lambda rate: optax.set_to_zero())


def start_of(init):
    def start(key):
        value = init(key)
        return {"v": value.astype(jnp.float32), "z": jnp.zeros(())}

    return start


SHAPE = (6, 4)
INITIALIZERS: dict[str, Case] = {
    **{
        name: initial(lambda key, name=name: getattr(N, name)()(key, SHAPE))
        for name in (
            "glorot_normal",
            "glorot_uniform",
            "he_normal",
            "he_uniform",
            "kaiming_normal",
            "kaiming_uniform",
            "lecun_normal",
            "lecun_uniform",
            "normal",
            "truncated_normal",
            "uniform",
            "xavier_normal",
            "xavier_uniform",
        )
    },
    "constant": initial(lambda key: N.constant(0.3)(key, SHAPE)),
    "ones": initial(lambda key: N.ones(key, SHAPE)),
    "zeros": initial(lambda key: N.zeros(key, SHAPE)),
    "variance_scaling": initial(lambda key: N.variance_scaling(2.0, "fan_avg", "truncated_normal")(key, SHAPE)),
    "orthogonal": initial(lambda key: N.orthogonal()(key, SHAPE)),
    "orthogonal, wide": initial(lambda key: N.orthogonal()(key, (4, 6))),
    "delta_orthogonal": initial(lambda key: N.delta_orthogonal()(key, (3, 2, 4))),
}

# `tests/test_random_numbers.py` has every way to make a key, and the distributions that most models start from.
DRAWS: dict[str, Case] = {
    "many keys": initial(lambda key: jax.vmap(lambda k: R.normal(k, (4,)))(R.split(key, 6))),
    "keys in a scan": initial(
        lambda key: jax.lax.scan(lambda k, _: ((s := R.split(k))[0], R.normal(s[1], (4,))), key, None, 5)[1]
    ),
    "ball": initial(lambda key: R.ball(key, 3, shape=(4,))),
    "beta": initial(lambda key: R.beta(key, 2.0, 3.0, (4,))),
    "binomial": initial(lambda key: R.binomial(key, 9, 0.4, (4,))),
    "bits": initial(lambda key: R.bits(key, SHAPE) >> 8),
    "bits, a byte": initial(lambda key: R.bits(key, SHAPE, jnp.uint8)),
    "chisquare": initial(lambda key: R.chisquare(key, 3.0, shape=(4,))),
    "choice": initial(lambda key: R.choice(key, 9, SHAPE)),
    "choice, no repeats": initial(lambda key: R.choice(key, 30, SHAPE, replace=False)),
    "dirichlet": initial(lambda key: R.dirichlet(key, jnp.array([1.0, 2.0, 0.5]), (4,))),
    "double_sided_maxwell": initial(lambda key: R.double_sided_maxwell(key, 0.0, 1.0, SHAPE)),
    "f": initial(lambda key: jnp.tanh(R.f(key, 3.0, 5.0, (4,)))),
    "gamma": initial(lambda key: R.gamma(key, 2.5, (4,))),
    "generalized_normal": initial(lambda key: R.generalized_normal(key, 1.5, (4,))),
    "geometric": initial(lambda key: R.geometric(key, 0.3, SHAPE)),
    "loggamma": initial(lambda key: R.loggamma(key, 0.7, (4,))),
    "lognormal": initial(lambda key: R.lognormal(key, 0.5, SHAPE)),
    "maxwell": initial(lambda key: R.maxwell(key, SHAPE)),
    "multinomial": initial(lambda key: R.multinomial(key, 7.0, jnp.array([0.2, 0.5, 0.3]))),
    "multivariate_normal": initial(
        lambda key: R.multivariate_normal(key, jnp.zeros(2), jnp.array([[2.0, 0.5], [0.5, 1.0]]), (4,))
    ),
    "orthogonal": initial(lambda key: R.orthogonal(key, 4)),
    "pareto": initial(lambda key: jnp.tanh(R.pareto(key, 3.0, SHAPE))),
    "permutation": initial(lambda key: R.permutation(key, 12)),
    "permutation, independent": initial(
        lambda key: R.permutation(key, jnp.arange(24).reshape(SHAPE), 1, independent=True)
    ),
    "poisson": initial(lambda key: R.poisson(key, 4.0, (4,))),
    "poisson, large": initial(lambda key: R.poisson(key, 40.0, (4,))),
    "rayleigh": initial(lambda key: R.rayleigh(key, 1.0, SHAPE)),
    "t": initial(lambda key: R.t(key, 3.0, (4,))),
    "triangular": initial(lambda key: R.triangular(key, 0.0, 0.3, 1.0, SHAPE)),
    "wald": initial(lambda key: R.wald(key, 1.0, SHAPE)),
    "weibull_min": initial(lambda key: R.weibull_min(key, 1.0, 1.5, SHAPE)),
}


def start_of_training(key):
    del key
    return {"w": jnp.cos(jnp.arange(20.0).reshape(5, 4)), "b": jnp.linspace(-1, 1, 4), "s": jnp.float32(0.7)}


TRAINED = row(lambda p, b: jnp.tanh(b["x"] @ p["w"] + p["b"]) * p["s"], start_of_training)


def trained(optimizer) -> Case:
    """A row of a matrix, a vector and a number, whose gradients are of all sizes."""
    return replace(TRAINED, optimizer=optimizer)


OPTIMIZERS: dict[str, Case] = {
    **{
        name: trained(getattr(optax, name))
        for name in (
            "adabelief",
            "adadelta",
            "adafactor",
            "adagrad",
            "adam",
            "adamax",
            "adamaxw",
            "adamw",
            "adan",
            "amsgrad",
            "fromage",
            "lamb",
            "lars",
            "lion",
            "nadam",
            "nadamw",
            "novograd",
            "optimistic_adam_v2",
            "optimistic_gradient_descent",
            "radam",
            "rmsprop",
            "sign_sgd",
            "yogi",
        )
    },
    "sgd, momentum": trained(lambda lr: optax.sgd(lr, momentum=0.9)),
    "sgd, nesterov": trained(lambda lr: optax.sgd(lr, momentum=0.9, nesterov=True)),
    "sm3": row(lambda p, b: b["x"] @ p["w"], {"w": (5, 4)}, optimizer=optax.sm3),
    "signum": trained(lambda lr: optax.signum(lr)),
    "rmsprop, centered": trained(lambda lr: optax.rmsprop(lr, centered=True, momentum=0.9)),
    "noisy_sgd, a seed": trained(lambda lr: optax.noisy_sgd(lr, key=0)),
    "noisy_sgd, a typed key": trained(lambda lr: optax.noisy_sgd(lr, key=R.key(0))),
    "lbfgs": trained(lambda lr: optax.chain(optax.scale_by_lbfgs(memory_size=3), optax.scale(-1.0 * lr))),
    "scale_by_rprop": trained(lambda lr: optax.chain(optax.scale_by_rprop(0.1), optax.scale(-0.1))),
    "clip_by_global_norm": trained(lambda lr: optax.chain(optax.clip_by_global_norm(0.1), optax.adam(lr))),
    "adaptive_grad_clip": trained(lambda lr: optax.chain(optax.adaptive_grad_clip(0.1), optax.adam(lr))),
    "a schedule": trained(
        lambda lr: optax.chain(
            optax.scale_by_adam(), optax.scale_by_schedule(optax.warmup_cosine_decay_schedule(0.0, -0.1, 3, 9))
        )
    ),
    "MultiSteps": trained(lambda lr: optax.MultiSteps(optax.adam(lr), 3).gradient_transformation()),
    "apply_every": trained(lambda lr: optax.chain(optax.apply_every(2), optax.sgd(lr))),
    "apply_if_finite": trained(lambda lr: optax.apply_if_finite(optax.adam(lr), 3)),
    "conditionally_transform": trained(lambda lr: optax.conditionally_transform(optax.adam(lr), lambda s: s % 2 == 0)),
    "conditionally_mask": trained(lambda lr: optax.conditionally_mask(optax.sgd(lr, 0.9), lambda s: s % 2 == 0)),
    "skip_not_finite": trained(
        lambda lr: optax.MultiSteps(
            optax.adam(lr), 1, should_skip_update_fn=optax.skip_not_finite
        ).gradient_transformation()
    ),
    "masked": trained(lambda lr: optax.masked(optax.adam(lr), {"w": True, "b": False, "s": True})),
    "partition": trained(
        lambda lr: optax.partition({"a": optax.adam(lr), "b": optax.sgd(lr, 0.9)}, {"w": "a", "b": "b", "s": "b"})
    ),
    "ema": trained(lambda lr: optax.chain(optax.ema(0.9), optax.sgd(lr))),
    "trace, zero_nans": trained(lambda lr: optax.chain(optax.trace(0.9), optax.zero_nans(), optax.scale(-0.1))),
    "keep_params_nonnegative": trained(lambda lr: optax.chain(optax.sgd(lr), optax.keep_params_nonnegative())),
    "inject_hyperparams": trained(
        lambda lr: optax.inject_hyperparams(optax.adam)(learning_rate=lambda step: 0.1 / (1 + step))
    ),
    "scale_by_adan": trained(lambda lr: optax.chain(optax.scale_by_adan(), optax.scale(-0.01))),
    "scale_by_param_block_rms": trained(lambda lr: optax.chain(optax.scale_by_param_block_rms(), optax.adam(lr))),
    "contrib.ademamix": trained(lambda lr: contrib.ademamix(lr)),
    "contrib.adopt": trained(lambda lr: contrib.adopt(lr)),
    "contrib.muon": trained(lambda lr: contrib.muon(lr)),
    "centralize": trained(lambda lr: optax.chain(optax.centralize(), optax.adam(lr))),
    "contrib.schedule_free": trained(lambda lr: contrib.schedule_free(optax.sgd(0.1), 0.1, b1=0.9)),
    "contrib.dadapt_adamw": trained(lambda lr: contrib.dadapt_adamw(1.0)),
    "contrib.prodigy": trained(lambda lr: contrib.prodigy(1.0)),
    "contrib.mechanize": trained(lambda lr: contrib.mechanize(optax.sgd(0.1))),
    "contrib.cocob": trained(lambda lr: contrib.cocob()),
    "contrib.dog": trained(lambda lr: contrib.dog(1.0)),
    "contrib.acprop": trained(lambda lr: contrib.acprop(lr)),
    "scale_by_factored_rms": trained(lambda lr: optax.chain(optax.scale_by_factored_rms(), optax.scale(-0.01))),
    **{
        name: trained(lambda lr, name=name: optax.chain(getattr(optax, name)(), optax.scale(-0.01)))
        for name in (
            "normalize_by_update_norm",
            "scale_by_adadelta",
            "scale_by_adamax",
            "scale_by_amsgrad",
            "scale_by_belief",
            "scale_by_lion",
            "scale_by_novograd",
            "scale_by_optimistic_gradient",
            "scale_by_param_block_norm",
            "scale_by_radam",
            "scale_by_rms",
            "scale_by_rss",
            "scale_by_sign",
            "scale_by_stddev",
            "scale_by_trust_ratio",
            "scale_by_yogi",
        )
    },
    "rprop": trained(lambda lr: optax.rprop(0.1)),
    "flatten": trained(lambda lr: optax.flatten(optax.adam(lr))),
    "named_chain": trained(lambda lr: optax.named_chain(("a", optax.scale_by_adam()), ("b", optax.scale(-0.1)))),
    "clip_by_block_rms": trained(lambda lr: optax.chain(optax.clip_by_block_rms(0.1), optax.adam(lr))),
    "add_decayed_weights": trained(lambda lr: optax.chain(optax.add_decayed_weights(0.1), optax.adam(lr))),
    "add_noise": trained(lambda lr: optax.chain(optax.add_noise(0.1, 0.5, key=3), optax.sgd(lr))),
    "skip_large_updates": trained(
        lambda lr: optax.MultiSteps(
            optax.adam(lr),
            1,
            should_skip_update_fn=lambda u, s, p: optax.skip_large_updates(u, s, p, max_squared_norm=0.5),
        ).gradient_transformation()
    ),
    **{
        f"adam, {name}": trained(lambda lr, schedule=schedule: optax.adam(schedule))
        for name, schedule in {
            "one cycle": optax.cosine_onecycle_schedule(10, 0.1),
            "a linear cycle": optax.linear_onecycle_schedule(10, 0.1),
            "restarts": optax.sgdr_schedule(
                [{"init_value": 0.0, "peak_value": 0.1, "decay_steps": 4, "warmup_steps": 2, "end_value": 0.01}] * 3
            ),
            "pieces": optax.piecewise_interpolate_schedule("cosine", 0.1, {3: 0.5, 6: 0.1}),
            "constant pieces": optax.piecewise_constant_schedule(0.1, {3: 0.5, 6: 0.1}),
            "a polynomial": optax.polynomial_schedule(0.1, 0.01, 2, 8),
            "stairs": optax.warmup_exponential_decay_schedule(0.0, 0.1, 2, 3, 0.9, staircase=True),
            "two schedules": optax.join_schedules(
                [optax.constant_schedule(0.1), optax.linear_schedule(0.1, 0, 5)], [4]
            ),
        }.items()
    },
    **{
        f"contrib.{name}": trained(lambda lr, name=name: getattr(contrib, name)(0.1))
        for name in ("dowg", "madgrad", "simplified_ademamix", "schedule_free_adamw", "schedule_free_sgd")
    },
    "contrib.normalize": trained(lambda lr: optax.chain(contrib.normalize(), optax.sgd(lr))),
    "contrib.sam": trained(
        lambda lr: contrib.sam(optax.sgd(0.1), optax.chain(contrib.normalize(), optax.sgd(0.05)), sync_period=2)
    ),
}

TABLES = {
    "initializers": Table(INITIALIZERS, trained=False, evaluates=False),
    "draws": Table(DRAWS, trained=False, evaluates=False),
    # Updates as large as the parameters would end in infinities.
    "optimizers": Table(OPTIMIZERS, rate=0.05),
}


@pytest.mark.parametrize(("table", "name"), [(key, name) for key, table in TABLES.items() for name in table.rows])
def test_it_is_what_jax_computes(table: str, name: str) -> None:
    assert not TABLES[table].disagreements(name)
