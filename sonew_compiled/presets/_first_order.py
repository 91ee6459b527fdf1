"""The records of optimizers that treat every entry of a gradient by itself."""

from __future__ import annotations

from sonew_compiled.presets._record import OptimizerRecord, long_presets
from sonew_compiled.presets._settings import b1, b2, eps, weight_decay

_OF_OPTAX = "sonew_compiled.optimizer._of_optax"

# At 2e-3 Adam loses half as much again in 20 epochs. In 100 epochs that rate is 2 nats better than half of it.
_SHORT_ADAM = 7e-4
_LONG_ADAM = long_presets({"f32": 2e-3, "bf16-mixed": 2e-3})

RECORDS = (
    OptimizerRecord(
        name="sgd",
        factory="optax:sgd",
        learning_rate=1e-2,
        paper="Robbins and Monro 1951",
        state="0",
    ),
    OptimizerRecord(
        name="momentum",
        factory=f"{_OF_OPTAX}:momentum",
        learning_rate=2.9e-3,
        settings=(b1(0.72),),
        paper="Polyak 1964",
        state="1",
    ),
    OptimizerRecord(
        name="nesterov",
        factory=f"{_OF_OPTAX}:nesterov",
        learning_rate=4.8e-3,
        settings=(b1(0.6),),
        paper="Nesterov 1983; Sutskever et al. 2013",
        state="1",
    ),
    OptimizerRecord(
        name="adagrad",
        factory=f"{_OF_OPTAX}:adagrad",
        learning_rate=7.2e-3,
        settings=(eps(1.2e-5),),
        paper="Duchi et al. 2011, figure 1, diagonal",
        state="1",
    ),
    OptimizerRecord(
        name="rmsprop",
        factory=f"{_OF_OPTAX}:rmsprop",
        learning_rate=8.8e-4,
        # In bfloat16 the rate of float32 makes all pictures alike in the first epochs, from which it comes back late.
        long=long_presets(
            {"f32": 4e-4, "bf16-mixed": 3e-4, "bf16": 1e-4, "bf16-pure": 1e-4}, b1=0.9, b2=0.99, eps=1e-6
        ),
        # Without momentum there is no state for it, so whether `b1` is 0 must be known while the step is traced.
        settings=(b1(0.0, at_run_time=False), b2(0.97), eps(1.4e-5)),
        paper="Tieleman and Hinton 2012",
        state="1, or 2 with `b1`",
    ),
    OptimizerRecord(
        name="adam",
        factory="optax:adam",
        learning_rate=_SHORT_ADAM,
        long=long_presets({"f32": 4e-3, "bf16-mixed": 4e-3, "bf16": 2e-3, "bf16-pure": 2e-3}),
        settings=(b1(0.9), b2(0.99), eps(1e-6)),
        paper="Kingma and Ba 2014, arXiv 1412.6980",
        state="2",
    ),
    OptimizerRecord(
        name="adamw",
        factory="optax:adamw",
        learning_rate=_SHORT_ADAM,
        long=_LONG_ADAM,
        settings=(b1(0.9), b2(0.99), eps(1e-6), weight_decay(1e-4)),
        paper="Loshchilov and Hutter 2017, arXiv 1711.05101",
        state="2",
    ),
    OptimizerRecord(
        name="adam-8bit",
        factory="sonew_compiled.optimizer:adam_8bit",
        learning_rate=_SHORT_ADAM,
        long=_LONG_ADAM,
        settings=(b1(0.9), b2(0.99), eps(1e-6)),
        paper="Dettmers et al. 2021, arXiv 2110.02861",
        state="2 bytes, and 2 numbers for 256 parameters",
    ),
    OptimizerRecord(
        name="schedule-free-adamw",
        factory="sonew_compiled.optimizer:schedule_free_adamw",
        learning_rate=6.7e-4,
        # With `b1` 0 nothing would be averaged.
        settings=(b1(0.9, is_positive=True), b2(0.99), eps(1e-6), weight_decay(0.0)),
        paper="Defazio et al. 2024, arXiv 2405.15682",
        state="2",
        limits="`b1` above 0",
    ),
)
