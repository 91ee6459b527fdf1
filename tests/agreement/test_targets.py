"""The kinds of models on every target: none is refused, some are compiled for each family, and some are run."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import generated
import kind_targets
import pytest
from agreement.case import Case, combine
from agreement.compare import compiled, disagreements, unread
from agreement.kinds import KINDS
from agreement.rows import by_optimizers

from sonew_compiled import passes
from sonew_compiled.lowering.lower import adapt
from sonew_compiled.lowering.targets import Target, resolve_target, target_names
from sonew_compiled.runtime import list_devices
from sonew_compiled.trace import trace_training

ROOT = Path(__file__).parents[2]
ROWS = kind_targets.read_rows(ROOT / "docs/results/kinds-targets.jsonl")

# The cheapest to compile take turns.
COMPILED = {
    "cpu:aarch64+bf16": ["two towers"],
    "cpu:riscv64": ["state space"],
    "cuda:sm_80": ["low-rank adapter"],
    "rocm:gfx942": ["mixture density"],
    "metal": ["contrastive"],
    "vulkan:adreno": ["recommender"],
    "tpu:v5e": ["flow of couplings", "neural ODE"],
}
RUN = {"vmvx": ["low-rank adapter", "flow of couplings"], "vulkan": ["physics-informed"]}


def together(names: list[str]) -> Case:
    """These kinds as one, by Adam."""
    cases = by_optimizers({name: KINDS[name] for name in names}, ("adam",))
    return combine(cases) if names[1:] else next(iter(cases.values()))


def test_every_kind_compiles_for_every_target_or_is_refused_with_a_reason() -> None:
    tested = re.search(r"^iree-base-compiler==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    assert tested is not None
    assert {row["compiler"] for row in ROWS} == {tested[1]}
    pairs = [(row["kind"], row["target"]) for row in ROWS]
    assert sorted(pairs) == sorted(itertools.product(KINDS, kind_targets.TARGETS))
    families = {target.partition(":")[0] for target in kind_targets.TARGETS}
    assert families == {target.partition(":")[0] for target in target_names()}
    for row in ROWS:
        runs = row["target"] in ("cpu", "vmvx", "vulkan")
        assert row["outcome"] in (("agrees", "refused") if runs else ("agrees", "compiled", "refused")), row
        assert bool(row["reason"]) == (row["outcome"] == "refused")


def test_the_document_has_the_table() -> None:
    document = (ROOT / "docs/reference/targets.md").read_text(encoding="utf-8")
    assert kind_targets.markdown(ROWS) in generated.filled(document)


def adapted_alike() -> list[list[Target]]:
    """The targets but processors, for which test_models.py compiles; together those with the same passes and limits."""
    alike: dict[object, list[Target]] = {}
    for target in map(resolve_target, kind_targets.TARGETS):
        if target.family != "cpu":
            alike.setdefault((target.passes, target.lacks, target.lacks_in_convolutions), []).append(target)
    return list(alike.values())


BATCHES = [list(names) for _, names in itertools.groupby(KINDS, lambda name: KINDS[name].batch)]


@pytest.mark.parametrize("names", BATCHES, ids=lambda names: names[0])
def test_no_target_refuses_a_kind(names: list[str]) -> None:
    """Kinds that read the same batch are adapted together. The rows are of each alone, and of the compilers as well."""
    case = together(names)
    text = trace_training(
        loss=case.loss, init=case.init, optimizer=case.optimizer, batch=dict(case.batch), eval_loss=unread
    ).text
    module = passes.parse(text)
    passes.run_pipeline(module)
    artifact = passes.to_portable_artifact(module)
    refused = {row["target"] for row in ROWS if row["kind"] in names and row["outcome"] == "refused"}
    for target, *others in adapted_alike():
        if not refused.intersection(each.name for each in (target, *others)):
            assert adapt(artifact, target, what=names[0])


@pytest.mark.parametrize("target", COMPILED)
def test_kinds_are_compiled_for_each_family(target: str, tmp_path: Path) -> None:
    bundle = compiled(together(COMPILED[target]), tmp_path / "bundle", [target], rate=1e-3, evaluates=False)
    assert (tmp_path / "bundle" / bundle.manifest.targets[0].file).stat().st_size


@pytest.mark.parametrize("device", RUN)
def test_kinds_train_as_in_jax_on_other_devices(device: str) -> None:
    if device == "vulkan" and not any(found.name == "vulkan" for found in list_devices()):
        pytest.skip("there is no Vulkan device here")
    case = together(RUN[device])
    assert not disagreements(case, devices=(device,), steps=1, chained=5, rate=1e-3, evaluates=False)
