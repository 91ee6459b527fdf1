"""Precision policies: the dtypes of storage and computation, each as a list of passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sonew_compiled.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A choice of dtypes.

    Attributes:
        name: the name on the command line.
        summary: its meaning in one line.
        passes: the passes that apply it to a float32 module, in order, as `tools/sonew_opt.py --pass` takes them.
        parameter_dtype: the dtype of the stored parameters, by its NumPy or ml_dtypes name.
        state_dtype: the dtype of the optimizer's stored statistics and momenta.
        arithmetic: the dtype of everything that is not stored and no operand of a matrix product.
        loss_scale: the largest scale of the loss while it is differentiated; None if it is not scaled.
    """

    name: str
    summary: str
    passes: tuple[str, ...]
    parameter_dtype: str
    state_dtype: str
    arithmetic: str = "float32"
    loss_scale: float | None = None


_POLICIES = (
    Policy(
        name="f32",
        summary="everything in float32",
        passes=(),
        parameter_dtype="float32",
        state_dtype="float32",
    ),
    Policy(
        name="bf16",
        summary="state in bfloat16, products of bfloat16 operands, everything else in float32",
        passes=("lower-storage:dtype=bf16", "lower-contractions:dtype=bf16", "use-stored"),
        parameter_dtype="bfloat16",
        state_dtype="bfloat16",
    ),
    Policy(
        name="bf16-pure",
        summary="every tensor in bfloat16, every operation rounded",
        passes=("lower-storage:dtype=bf16", "retype:dtype=bf16"),
        parameter_dtype="bfloat16",
        state_dtype="bfloat16",
        arithmetic="bfloat16",
    ),
    Policy(
        name="bf16-mixed",
        summary="products of bfloat16 operands, everything else in float32",
        passes=("lower-contractions:dtype=bf16",),
        parameter_dtype="float32",
        state_dtype="float32",
    ),
    Policy(
        name="f16-mixed",
        summary="products of float16 operands, the loss scaled; everything else in float32",
        passes=("lower-contractions:dtype=f16", "loss-scaling"),
        parameter_dtype="float32",
        state_dtype="float32",
        loss_scale=2.0**24,
    ),
    Policy(
        name="bf16-sr",
        summary="as bf16, with parameters rounded stochastically",
        passes=(
            "lower-storage:dtype=bf16",
            "lower-contractions:dtype=bf16",
            "use-stored",
            "stochastic-rounding:roles=parameter",
        ),
        parameter_dtype="bfloat16",
        state_dtype="bfloat16",
    ),
)

POLICIES: Mapping[str, Policy] = MappingProxyType({policy.name: policy for policy in _POLICIES})
"""Every policy by name."""


def precision_policy(name: str) -> Policy:
    """The policy of this name.

    Raises:
        UsageError: there is no such policy; the message lists the policies.
    """
    if name not in POLICIES:
        raise UsageError(f"unknown precision {name!r}; give one of {', '.join(POLICIES)}")
    return POLICIES[name]
