"""Every pass by name, and how one is named with its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from sonew_compiled.errors import UsageError
from sonew_compiled.passes.precision import (
    loss_scaling,
    lower_contractions,
    lower_storage,
    retype,
    stochastic_rounding,
    use_stored,
)
from sonew_compiled.passes.record import Pass
from sonew_compiled.passes.shared import (
    bound_scatters,
    clamp_gathers,
    fill_empty,
    flatten_scatters,
    keep_exports,
    legalize_chlo,
    merge_exports,
    move_results,
    split_complex,
    split_reductions,
    split_step,
    split_update,
    strip_locations,
    strip_roles,
    strip_shardings,
    transpose_scatters,
    trim_windows,
    wire_donation,
)
from sonew_compiled.passes.target import (
    bound_kernels,
    bound_numbers,
    drop_roundings,
    emulate_arithmetic,
    emulate_bf16,
    emulate_contractions,
    emulate_rounding,
    exact_contractions,
    expand_arithmetic,
    expand_logarithms,
    fence_contractions,
    fence_elements,
    fence_iotas,
    fence_regions,
    fence_scatters,
    fence_sums,
    fence_widenings,
    flatten_contractions,
    fork_stored,
    forward_rows,
    gather_shifts,
    guard_functions,
    guard_powers,
    join_products,
    move_unsigned,
    negate_sums,
    order_sums,
    own_operands,
    pad_windows,
    reduce_angles,
    round_products,
    saturate_conversions,
    select_export,
    stabilize_sorts,
    stream_rows,
    take_examples,
    truncate_conversions,
    unfold_convolutions,
    unroll_loops,
    widen_booleans,
    widen_integers,
    widen_operands,
)

ROOMS: Mapping[str, Sequence[Pass]] = MappingProxyType(
    {
        "shared": (
            strip_shardings.PASS,
            merge_exports.PASS,
            move_results.PASS,
            legalize_chlo.PASS,
            split_complex.PASS,
            clamp_gathers.PASS,
            bound_scatters.PASS,
            flatten_scatters.PASS,
            transpose_scatters.PASS,
            trim_windows.PASS,
            fill_empty.PASS,
            split_step.PASS,
            split_update.PASS,
            split_reductions.PASS,
            wire_donation.PASS,
            strip_locations.PASS,
            strip_roles.PASS,
            keep_exports.PASS,
        ),
        "precision": (
            lower_storage.PASS,
            lower_contractions.PASS,
            use_stored.PASS,
            retype.PASS,
            stochastic_rounding.PASS,
            loss_scaling.PASS,
        ),
        "target": (
            round_products.PASS,
            emulate_contractions.PASS,
            emulate_arithmetic.PASS,
            drop_roundings.PASS,
            emulate_rounding.PASS,
            emulate_bf16.PASS,
            widen_operands.PASS,
            pad_windows.PASS,
            move_unsigned.PASS,
            unfold_convolutions.PASS,
            order_sums.PASS,
            negate_sums.PASS,
            saturate_conversions.PASS,
            truncate_conversions.PASS,
            widen_integers.PASS,
            expand_arithmetic.PASS,
            guard_powers.PASS,
            guard_functions.PASS,
            reduce_angles.PASS,
            expand_logarithms.PASS,
            stream_rows.PASS,
            flatten_contractions.PASS,
            fence_contractions.PASS,
            fence_elements.PASS,
            bound_kernels.PASS,
            bound_numbers.PASS,
            widen_booleans.PASS,
            fence_iotas.PASS,
            fence_sums.PASS,
            stabilize_sorts.PASS,
            own_operands.PASS,
            unroll_loops.PASS,
            forward_rows.PASS,
            join_products.PASS,
            fence_regions.PASS,
            gather_shifts.PASS,
            fork_stored.PASS,
            fence_scatters.PASS,
            fence_widenings.PASS,
            exact_contractions.PASS,
            select_export.PASS,
            take_examples.PASS,
        ),
    }
)
"""The passes of each folder of passes, in the order of their documentation."""

REGISTRY: Mapping[str, Pass] = MappingProxyType({each.name: each for room in ROOMS.values() for each in room})
"""Every pass by name."""


def parse_pass(text: str) -> Pass:
    """Return the pass that `name` or `name:option=value,option=value` means.

    Raises:
        UsageError: no such pass or option, or a value that the option does not take.
    """
    name, _, rest = text.partition(":")
    if name not in REGISTRY:
        raise UsageError(f"no pass {name!r}; the passes are: {', '.join(REGISTRY)}")
    chosen = REGISTRY[name]
    readers = {each.name: each.read for each in chosen.options}
    values: dict[str, object] = {}
    for part in filter(None, rest.split(",")):
        option, _, value = part.partition("=")
        read = readers.get(option, str)  # an unknown option is refused by bind, with the ones there are
        try:
            values[option] = read(value)
        except ValueError as error:
            raise UsageError(f"pass {name}: {value!r} is no value for {option}: {error}") from error
    return chosen.bind(**values)
