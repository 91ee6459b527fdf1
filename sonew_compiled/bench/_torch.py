"""The autoencoder's Adam step in PyTorch, eager and compiled, in turns with the compiled one."""

from __future__ import annotations

import importlib.util
import itertools
import time
from typing import Any

from sonew_compiled.bench._pairs import measure_pairs
from sonew_compiled.bench._update import load_step
from sonew_compiled.bench._versus import compared
from sonew_compiled.bench.plan import Run
from sonew_compiled.contract import Driver
from sonew_compiled.errors import SonewError
from sonew_compiled.models.autoencoder import WIDTHS
from sonew_compiled.runtime import Program, open_bundle, open_device


def has_torch() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def time_torch(run: dict[str, Any], bundle: str, pairs: int, *, compiled: bool) -> dict[str, Any]:
    """The task that makes the row of PyTorch for comparison with a compiled step.

    Raises:
      SonewError: PyTorch is not installed, or the run is not Adam on the autoencoder in float32 on the processor.
    """
    if not has_torch():
        raise SonewError("PyTorch is not installed: pip install torch")
    asked = Run.from_settings(run)
    if (asked.model, asked.optimizer.name, asked.precision) != ("autoencoder", "adam", "f32"):
        raise SonewError("PyTorch is compared with adam on the autoencoder in f32 only")
    device = open_device(asked.device)
    if device.driver != Driver.LOCAL:
        raise SonewError(f"PyTorch is compared on the processor only, not on {device.name}")
    step = load_step(Program.load(open_bundle(bundle), device))
    other = _step(asked, compiled=compiled)
    started = time.perf_counter()
    other()
    seconds = time.perf_counter() - started
    return {"compile_seconds": seconds if compiled else None, **compared(measure_pairs(step, other, pairs))}


def _step(run: Run, *, compiled: bool) -> Any:
    import torch

    torch.manual_seed(run.seed)
    linear = (len(WIDTHS) // 2 - 1, len(WIDTHS) - 2)
    layers: list[Any] = []
    for index, (n_in, n_out) in enumerate(itertools.pairwise(WIDTHS)):
        layers.append(torch.nn.Linear(n_in, n_out))
        if index not in linear:
            layers.append(torch.nn.Tanh())
    model = torch.nn.Sequential(*layers)
    values = run.optimizer.values
    betas = (values["b1"], values["b2"])
    adam = torch.optim.Adam(model.parameters(), lr=1e-6, betas=betas, eps=values["eps"])
    image = torch.rand(run.batch_size, WIDTHS[0])

    def loss() -> Any:
        logits = model(image)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, image, reduction="sum") / len(image)

    def step() -> None:
        adam.zero_grad()
        value = loss()
        value.backward()
        adam.step()

    return torch.compile(step) if compiled else step
