"""Keep the training state in 16 bits, and compute with it as before.

Each tensor with a `sonew.role` of the state is widened as it enters an export, which is exact, and rounded to nearest,
ties to even, as it leaves. A step that computes and stores a value goes on with the unrounded number.
"""

from __future__ import annotations

from collections.abc import Collection

from sonew_compiled.contract import STORED_ROLES
from sonew_compiled.passes.ir.attributes import role_indices
from sonew_compiled.passes.ir.function import functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import has_element
from sonew_compiled.passes.record import Option, Pass, read_half, read_roles


def lower_storage(module: ir.Module, *, dtype: str, roles: Collection[str]) -> None:
    """Make the float32 arguments and results of these roles, in every export, tensors of `dtype`."""
    narrow, wide = ir.Type.parse(dtype), ir.F32Type.get()
    for function in functions(module):
        if not function.is_public:
            continue
        for index in role_indices(function.argument_attributes, roles):
            if has_element(function.arguments[index], wide):
                function.retype_argument(index, narrow)
        for index in role_indices(function.result_attributes, roles):
            if has_element(function.returned[index], wide):
                function.retype_result(index, narrow)
        function.finish()


PASS = Pass(
    name="lower-storage",
    summary="keep the training state in 16 bits",
    description=__doc__,
    run=lower_storage,
    options=(
        Option(
            name="dtype",
            default="bf16",
            help="the type of the stored state, bf16 or f16",
            read=read_half,
        ),
        Option(
            name="roles",
            default=STORED_ROLES,
            help="which tensors of the state, by their `sonew.role`",
            read=read_roles,
        ),
    ),
)
