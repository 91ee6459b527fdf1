"""The records of optimizers that keep a matrix for each side of a tensor, or one for all parameters."""

from __future__ import annotations

from sonew_compiled.presets._record import Hyperparameter, OptimizerRecord
from sonew_compiled.presets._settings import b1, b2, block_size, eps, precond_interval

_FULL_MATRIX = "4096 parameters"

RECORDS = (
    OptimizerRecord(
        name="muon",
        factory="sonew_compiled.optimizer._of_optax:muon",
        learning_rate=6e-3,
        settings=(b1(0.95), b2(0.99), eps(1e-6)),
        paper="Jordan et al. 2024; arXiv 2502.16982 for the lengths",
        state="1, or 2",
        limits="matrices; other ranks follow Adam with Nesterov momentum, `b2` and `eps`",
    ),
    OptimizerRecord(
        name="normuon",
        factory="sonew_compiled.optimizer:normuon",
        learning_rate=6e-3,
        settings=(b1(0.95), b2(0.95), eps(1e-6)),
        paper="Li et al. 2025, arXiv 2510.05491",
        state="1, or 2",
        limits="matrices; other ranks follow Adam, with `b2` and `eps`",
    ),
    OptimizerRecord(
        name="soap",
        factory="sonew_compiled.optimizer:soap",
        learning_rate=6e-3,
        settings=(b1(0.95), b2(0.95), eps(1e-8), precond_interval(10)),
        paper="Vyas et al. 2024, arXiv 2409.11321",
        state="2 + 2 (rows/columns + columns/rows)",
        limits="sides up to 4096 are rotated",
    ),
    OptimizerRecord(
        name="shampoo",
        factory="sonew_compiled.optimizer:shampoo",
        learning_rate=3.7e-3,
        settings=(b1(0.9), b2(0.95), eps(1e-6), precond_interval(20), block_size(2048)),
        paper="Gupta et al. 2018, arXiv 1802.09568; Anil et al. 2020, arXiv 2002.09018",
        state="2 + 2 (rows/columns + columns/rows), of blocks",
    ),
    # It takes the settings that were found for `shampoo`, whose steps are as long.
    OptimizerRecord(
        name="caspr",
        factory="sonew_compiled.optimizer:caspr",
        learning_rate=3.7e-3,
        settings=(b1(0.9), b2(0.95), eps(1e-6), precond_interval(20), block_size(2048)),
        paper="Duvvuri et al. 2024, ICLR",
        state="2 + 2 (rows/columns + columns/rows), of blocks",
    ),
    OptimizerRecord(
        name="kl-shampoo",
        factory="sonew_compiled.optimizer:kl_shampoo",
        learning_rate=1e-3,
        settings=(b1(0.9), b2(0.95), eps(1e-6), precond_interval(10)),
        paper="Lin et al. 2025, arXiv 2509.03378",
        state="1 + 2 (rows/columns + columns/rows)",
        limits="sides up to 4096 are rotated",
    ),
    OptimizerRecord(
        name="psgd-kron",
        factory="sonew_compiled.optimizer:psgd_kron",
        learning_rate=1e-3,
        settings=(b1(0.9), eps(1e-9), precond_interval(5)),
        paper="Li 2015, arXiv 1512.04202; Li 2024, arXiv 2402.11858",
        state="1 + rows/columns + columns/rows",
        limits="sides above 4096 have diagonal factors",
    ),
    OptimizerRecord(
        name="rfdson",
        factory="sonew_compiled.optimizer:rfdson",
        learning_rate=7.9e-4,
        settings=(
            b1(0.76),
            b2(0.989),
            eps(0.91),
            Hyperparameter(
                name="rank",
                kind=int,
                default=4,
                help="Rows of the sketch.",
                least=1,
                most=64,
                accepted="a whole number from 1 to 64",
            ),
        ),
        paper="Luo et al. 2019, arXiv 1705.05067",
        state="2 + `rank`",
        limits="`rank` up to 64",
    ),
    # The presets of `ons` and `full-adagrad` were found on docs/examples/perceptron.py.
    OptimizerRecord(
        name="ons",
        factory="sonew_compiled.optimizer:ons",
        learning_rate=6.2,
        # `init` makes the state from `eps`.
        settings=(eps(1.0, at_run_time=False),),
        needs_float32_state=True,
        paper="Hazan et al. 2007",
        state="as many as there are parameters",
        limits=_FULL_MATRIX,
    ),
    OptimizerRecord(
        name="full-adagrad",
        factory="sonew_compiled.optimizer:full_adagrad",
        learning_rate=3.0,
        settings=(eps(1e-6), precond_interval(1)),
        paper="Duchi et al. 2011, figure 2, full matrices",
        state="twice as many as there are parameters",
        limits=_FULL_MATRIX,
    ),
)
