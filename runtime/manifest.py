"""`manifest.json`: the contents of a bundle, as dataclasses that the compiler fills and the runtime checks.

Format versions:
  1: the first.
  2: every tensor has a role; the manifest has `classes` and `setting_limits`.
  3: a bundle may be for inference alone, without `init` and `train_step`. Bundles that train are still of version 2.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from sonew_compiled import contract
from sonew_compiled.contract import EVALUATED_ROLES, STATE_ROLES, Role
from sonew_compiled.errors import SonewError
from sonew_compiled.runtime._format_1 import upgraded
from sonew_compiled.runtime._manifest_schema import MANIFEST, MANIFEST_1
from sonew_compiled.runtime.json_files import parse
from sonew_compiled.runtime.schema import Unfit
from sonew_compiled.runtime.shown import shown
from sonew_compiled.runtime.specs import FileSpec as FileSpec
from sonew_compiled.runtime.specs import FunctionSpec as FunctionSpec
from sonew_compiled.runtime.specs import KernelSpec as KernelSpec
from sonew_compiled.runtime.specs import Needs as Needs
from sonew_compiled.runtime.specs import TargetSpec as TargetSpec
from sonew_compiled.runtime.specs import TensorSpec as TensorSpec
from sonew_compiled.runtime.specs import TpuFunctionSpec as TpuFunctionSpec

FORMAT_VERSION = 3
TRAINING_FORMAT_VERSION = 2
OLDEST_FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, repr=False)
class Manifest:
    """The contents of a bundle.

    Attributes:
      format_version: the version of the bundle's layout.
      model: the name that the user gave the model.
      optimizer: the optimizer's name and settings, which are compiled in; runtime settings have their defaults here.
      precision: the policy of storage and computation; see docs/reference/precision.md.
      defaults: the defaults of `sonew run`: `learning_rate`, `schedule`, `batch_size`.
      versions: the versions of the packages that made the bundle, by name.
      functions: the exported functions by name; with `gradients` and `update` if it was compiled for micro-batches.
      targets: the executables.
      files: every file but the manifest, by name.
      classes: the number of classes of each label field of the batch, by name.
      setting_limits: for each runtime setting that is a decay, the least value that is too slow for the dtype of the
        stored state.
      unit: the unit of the loss, for reports; may be empty.
      starts_from: for each average, and each tensor of the optimizer's state that depends on the first parameters, the
        name of the parameter to which it is equal at first; empty if it is equal to none.
      exchange: the type to which the gradients of a micro-batch are rounded, "f32" or "bf16".
      step: the settings of the step besides the optimizer, such as clipping: `sonew_compiled/step_settings.py`.
      init: "device" if `init` makes parameters from the seed of a run, "host" if it gives those that the model's `init`
        gave for seed 0 when the bundle was compiled.
      takes: the functions by which executables take fields of a batch from a data set that stays on the device, named
        `take_DATA_FIELD_SHAPE` by the dtypes and the field's shape. The batches of other data, and all of a bundle
        without such functions and of TPUs, are copied to the device one by one.
      bucket_reads: for `update` and each of its parts the ranges of the bucket that it reads, in order, each by its
        first index and the one after its last. Older bundles have none.
    """

    format_version: int = TRAINING_FORMAT_VERSION
    model: str
    optimizer: Mapping[str, Any]
    precision: str = "f32"
    defaults: Mapping[str, Any]
    versions: Mapping[str, str]
    functions: Mapping[str, FunctionSpec]
    targets: tuple[TargetSpec, ...]
    files: Mapping[str, FileSpec] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)
    setting_limits: Mapping[str, float] = field(default_factory=dict)
    unit: str = ""
    starts_from: Mapping[str, str] = field(default_factory=dict)
    exchange: str = "f32"
    step: Mapping[str, Any] = field(default_factory=dict)
    init: str = "device"
    takes: tuple[str, ...] = ()
    bucket_reads: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        optimizer = f" with {self.optimizer.get('name', 'an optimizer')}" if self.is_trainable else " for inference"
        targets = ", ".join(target.name for target in self.targets)
        return f"Manifest({self.model}{optimizer} in {self.precision}, batches of {self.batch_size}, for {targets})"

    @property
    def is_trainable(self) -> bool:
        """Whether the bundle has a training step; one for inference alone has none."""
        return contract.TRAIN_STEP in self.functions

    @property
    def state(self) -> tuple[TensorSpec, ...]:
        """The training state: parameters first or not, in the order of `init`'s results.

        Of a bundle for inference the parameters and the model's state, which `eval_step` reads.
        """
        if not self.is_trainable:
            return self.evaluated
        return self.functions[contract.INIT].outputs

    @property
    def parameters(self) -> tuple[TensorSpec, ...]:
        """The tensors of the state that are the model's parameters."""
        return tuple(spec for spec in self.state if spec.role == Role.PARAMETER)

    @property
    def evaluated(self) -> tuple[TensorSpec, ...]:
        """The tensors of the state that `eval_step` reads; of parameters that have an average it is the average."""
        inputs = self.functions[contract.EVAL_STEP].inputs
        return tuple(spec for spec in inputs if spec.role in EVALUATED_ROLES)

    @property
    def parameter_count(self) -> int:
        """The number of elements of all parameters."""
        return sum(spec.size for spec in self.parameters)

    @property
    def state_bytes(self) -> int:
        """The bytes of the training state."""
        return sum(spec.nbytes for spec in self.state)

    @property
    def batch(self) -> tuple[TensorSpec, ...]:
        """The fields of a batch, without the leading `batch/` in their names; a bare batch has one field, `batch`."""
        return self.fields(contract.TRAIN_STEP if self.is_trainable else contract.EVAL_STEP)

    def fields(self, function: str) -> tuple[TensorSpec, ...]:
        """The fields of a batch that a function reads, likewise."""
        return tuple(
            replace(spec, name=contract.path_in_tree(spec.name, Role.BATCH))
            for spec in self.functions[function].inputs
            if spec.role == Role.BATCH
        )

    @property
    def runtime_settings(self) -> tuple[str, ...]:
        """The settings of `optimizer` that are not compiled in, and that `train_step` takes as float32 scalars."""
        step = self.functions.get(contract.TRAIN_STEP)
        return tuple(spec.name for spec in step.inputs if spec.role == Role.SETTING) if step else ()

    @property
    def batch_size(self) -> int:
        """The number of examples in a batch."""
        return self.batch[0].shape[0]

    @property
    def whole_batches(self) -> bool:
        """Whether `eval_step` gives the loss of a batch as a whole, not one for each example."""
        return not self.functions[contract.EVAL_STEP].outputs[0].shape

    @property
    def step_in_words(self) -> list[str]:
        """The settings in `step`, each with its value or values: `clip_norm 1.0`, `freeze encoder/* norm/*`."""
        values = {key: " ".join(value) if isinstance(value, list) else value for key, value in self.step.items()}
        return [f"{key} {value}" for key, value in values.items()]

    @property
    def micro_batch_size(self) -> int:
        """Examples that `gradients` takes at a time; 0 if the bundle was not compiled for micro-batches."""
        function = self.functions.get(contract.GRADIENTS)
        fed = [spec for spec in function.inputs if spec.role == Role.BATCH] if function else []
        return fed[0].shape[0] if fed else 0

    @property
    def update_parts(self) -> tuple[str, ...]:
        """The functions that update a part of the state each, beside `update_common`; none if it has no parts."""
        names = map(contract.update_part, range(len(self.functions)))
        return tuple(itertools.takewhile(lambda name: name in self.functions, names))

    @property
    def micro_batches(self) -> int:
        """The number of micro-batches in a batch; 0 if the bundle was not compiled for micro-batches."""
        return self.batch_size // self.micro_batch_size if self.micro_batch_size else 0

    def to_json(self) -> str:
        """The text of `manifest.json`: sorted keys, so that the same bundle has the same bytes."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str) -> Manifest:
        """Reads a manifest; `source` names the file in errors.

        Raises:
          SonewError: the text is no manifest, or is of a format version that this runtime does not read.
        """
        remedy = "compile the bundle again with `sonew compile`"
        try:
            raw = parse(text.encode(errors="surrogatepass"), constants=True)
        except Unfit as error:
            raise SonewError(f"{source} cannot be read ({error}); it is truncated or corrupt: {remedy}") from None
        version = raw.get("format_version") if isinstance(raw, dict) else None
        if not isinstance(version, int) or isinstance(version, bool):
            raise SonewError(f"{source} is not the manifest of a bundle: it has no format_version; {remedy}")
        if not OLDEST_FORMAT_VERSION <= version <= FORMAT_VERSION:
            raise SonewError(
                f"{source} has format version {shown(version)}; this runtime reads {OLDEST_FORMAT_VERSION} to "
                f"{FORMAT_VERSION}: {'upgrade sonew-compiled' if version > FORMAT_VERSION else remedy}"
            )
        try:
            raw = upgraded(MANIFEST_1(raw, "the manifest")) if version == 1 else MANIFEST(raw, "the manifest")
            manifest = cls(
                **{
                    **{f.name: raw[f.name] for f in fields(cls) if f.name in raw},
                    "functions": {name: _function(f) for name, f in raw["functions"].items()},
                    "targets": tuple(_target(t) for t in raw["targets"]),
                    "files": {name: FileSpec(**f) for name, f in raw["files"].items()},
                    "takes": tuple(raw.get("takes", ())),
                    "bucket_reads": {name: _ranges(each) for name, each in raw.get("bucket_reads", {}).items()},
                }
            )
            problem = _inconsistency(manifest)
        except Unfit as error:
            raise SonewError(f"{source} lacks or misspells a field ({error}); {remedy}") from None
        if problem:
            raise SonewError(f"{source} contradicts itself: {problem}; {remedy}")
        return manifest


def possible_takes(functions: Mapping[str, FunctionSpec]) -> tuple[str, ...]:
    """The functions of `Manifest.takes` that executables with these functions can have."""
    inputs = (spec for name in contract.LOOPED if name in functions for spec in functions[name].inputs)
    fields = (spec for spec in inputs if spec.role == Role.BATCH)
    return tuple(sorted({name for spec in fields for name in contract.takes_of(spec.shape, spec.dtype).values()}))


def _inconsistency(manifest: Manifest) -> str:
    """The first property on which the runtime relies and that the manifest lacks, in words; empty if there is none."""
    if (
        manifest.format_version >= FORMAT_VERSION
        and not {contract.INIT, contract.TRAIN_STEP} & manifest.functions.keys()
    ):
        return _inference_inconsistency(manifest)
    rate: Any = manifest.defaults.get("learning_rate")
    if type(rate) not in (int, float) or not 0 <= rate < math.inf:
        return f"the default learning_rate is {shown(rate)}, not a finite number of 0 or more"
    if not isinstance(manifest.defaults.get("schedule"), str):
        return "the default schedule is missing"
    for name in (contract.INIT, contract.TRAIN_STEP, contract.EVAL_STEP):
        if name not in manifest.functions:
            return f"there is no function {name}"
    step = manifest.functions[contract.TRAIN_STEP]
    by_name = {spec.name: spec for spec in manifest.state}
    for name, source in manifest.starts_from.items():
        copy, copied = by_name.get(name), by_name.get(source)
        is_parameter = copied is not None and copied.role == Role.PARAMETER
        if copy is None or copy.role not in (Role.OPTIMIZER, Role.AVERAGE) or (source and not is_parameter):
            return f"{shown(name)} cannot start from {shown(source)}"
        if copied is not None and copied.shape != copy.shape:
            return f"{shown(name)} has another shape than {shown(source)}, from which it starts"
    if not set(manifest.state) <= set(step.inputs) or not set(manifest.state) <= set(step.outputs):
        return "train_step does not take and give the state that init gives"
    if manifest.exchange not in contract.EXCHANGES:
        return f"the exchange is of {shown(manifest.exchange)}"
    if not manifest.parameters:
        return "the state has no parameters"
    stateless = next((spec for spec in manifest.state if spec.role not in STATE_ROLES), None)
    if stateless is not None:
        return f"{shown(stateless.name)} of the state has the role {stateless.role!r}"
    if (
        not manifest.batch
        or not manifest.batch[0].shape
        or any(spec.shape[:1] != manifest.batch[0].shape[:1] for spec in manifest.batch)
    ):
        return "train_step has no batch, or one whose fields differ in their leading axis"
    if contract.LEARNING_RATE not in _names(step.inputs) or contract.LOSS not in _names(step.outputs):
        return "train_step takes no learning_rate or gives no loss"
    for name in manifest.runtime_settings:
        value = manifest.optimizer.get(name)
        if type(value) not in (int, float):
            return f"train_step takes {shown(name)}, for which the optimizer has {shown(value)}"
    fed = {spec.name for spec in step.inputs if spec.role == Role.BATCH}
    evaluated = {spec.name for spec in manifest.state if spec.role in EVALUATED_ROLES}
    scalars = {contract.LEARNING_RATE, *manifest.runtime_settings}
    takes = {
        contract.INIT: {contract.SEED, contract.LEARNING_RATE},
        contract.TRAIN_STEP: fed | scalars | _names(manifest.state),
        contract.GRADIENTS: fed | scalars | _names(manifest.state),
    }
    for name in filter(contract.is_update, manifest.functions):
        takes[name] = {contract.BUCKET} | scalars | _names(manifest.state)
    numbers = _numbers(manifest)
    for name in manifest.update_parts:
        takes[name] |= numbers
    for name, function in manifest.functions.items():
        unknown = _names(function.inputs) - takes.get(name, fed | evaluated)
        if unknown or not function.outputs:
            return f"{shown(name)} takes {shown(min(unknown))}" if unknown else f"{shown(name)} gives nothing"
    return _seam_inconsistency(manifest)


def _inference_inconsistency(manifest: Manifest) -> str:
    """The first property that a bundle for inference alone lacks, in words; empty if there is none."""
    if contract.EVAL_STEP not in manifest.functions:
        return f"there is no function {contract.EVAL_STEP}"
    if not manifest.parameters:
        return "eval_step has no parameters"
    if not manifest.batch or any(spec.shape[:1] != (manifest.batch[0].shape or (0,))[:1] for spec in manifest.batch):
        return "eval_step has no batch, or one whose fields differ in their leading axis"
    known = set(manifest.functions[contract.EVAL_STEP].inputs)
    for name, function in manifest.functions.items():
        if name not in (contract.EVAL_STEP, contract.PREDICT):
            return f"there is a function {shown(name)}, which is for training"
        if not function.outputs or not set(function.inputs) <= known:
            return f"{name} takes what eval_step does not, or gives nothing"
    weights = manifest.files.get(contract.PARAMETERS_FILE)
    if weights is None or weights.size < manifest.state_bytes:
        return f"there is no file {contract.PARAMETERS_FILE}, or it is too small for the parameters"
    return ""


def _seam_inconsistency(manifest: Manifest) -> str:
    """The first property that the two halves of a step lack, in words; empty if there is none."""
    gradients, update = (manifest.functions.get(name) for name in (contract.GRADIENTS, contract.UPDATE))
    if gradients is None and update is None:
        return ""
    if gradients is None or update is None:
        return f"there is no function {contract.UPDATE if update is None else contract.GRADIENTS}"
    bucket = gradients.outputs[0]
    if len(gradients.outputs) != 1 or bucket.dtype != "float32" or len(bucket.shape) != 1 or bucket.size < 1:
        return "gradients does not give one vector of float32"
    if [spec for spec in update.inputs if spec.role == Role.GRADIENT] != [bucket]:
        return "update does not take what gradients gives"
    step = manifest.functions[contract.TRAIN_STEP]
    if set(update.outputs) != set(step.outputs) or not set(manifest.state) <= set(update.inputs):
        return "update does not take and give the state that train_step gives, and the loss"
    size = manifest.micro_batch_size
    fed = [spec for spec in gradients.inputs if spec.role == Role.BATCH]
    whole = {spec.name: spec for spec in step.inputs if spec.role == Role.BATCH}
    if size < 1 or manifest.batch_size % size:
        return f"micro-batches of {size} examples do not make a batch of {manifest.batch_size}"
    for spec in fed:
        if spec != replace(whole[spec.name], shape=(size, *whole[spec.name].shape[1:])):
            return f"{shown(spec.name)} of gradients is not a part of that of train_step"
    if any(spec not in manifest.state for spec in gradients.inputs if spec.role in STATE_ROLES):
        return "gradients takes a state that init does not give"
    return _parts_inconsistency(manifest)


def _parts_inconsistency(manifest: Manifest) -> str:
    """The same of the parts of `update`: together they must give all that it gives, each tensor once."""
    update = manifest.functions[contract.UPDATE]
    parts = [contract.UPDATE_COMMON, *manifest.update_parts] if manifest.update_parts else []
    superfluous = next(
        (n for n in manifest.functions if contract.is_update(n) and n not in [contract.UPDATE, *parts]), ""
    )
    if superfluous or (parts and contract.UPDATE_COMMON not in manifest.functions):
        return f"{shown(superfluous or contract.UPDATE_COMMON)} is no part of update, or lacks the others"
    given = [spec for name in parts for spec in manifest.functions[name].outputs if spec.role != Role.GRADIENT]
    if parts and (len(given) != len(update.outputs) or set(given) != set(update.outputs)):
        return "the parts of update do not give what update gives"
    size = manifest.functions[contract.GRADIENTS].outputs[0].size
    for name, ranges in manifest.bucket_reads.items():
        bounds = [0, *itertools.chain.from_iterable(ranges), size]
        if name not in manifest.functions or bounds != sorted(bounds) or any(start == end for start, end in ranges):
            return f"{shown(name)} cannot read the ranges {shown(list(ranges))} of the bucket"
    return ""


def _numbers(manifest: Manifest) -> set[str]:
    """The values that the common part of `update` hands to the others."""
    common = manifest.functions.get(contract.UPDATE_COMMON)
    return {spec.name for spec in common.outputs if spec.role == Role.GRADIENT} if common else set()


def _names(tensors: Iterable[TensorSpec]) -> set[str]:
    return {spec.name for spec in tensors}


def _tensors(raw: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=t["name"], shape=tuple(t["shape"]), dtype=t["dtype"], role=t["role"]) for t in raw)


def _ranges(raw: list[list[int]]) -> tuple[tuple[int, int], ...]:
    if any(len(each) != 2 for each in raw):
        raise Unfit("bucket_reads has a range that is no pair of numbers")
    return tuple((start, end) for start, end in raw)


def _function(raw: dict[str, Any]) -> FunctionSpec:
    return FunctionSpec(inputs=_tensors(raw["inputs"]), outputs=_tensors(raw["outputs"]))


def _target(raw: dict[str, Any]) -> TargetSpec:
    kernels = tuple(KernelSpec(**kernel) for kernel in raw.get("kernels", ()))
    programs = tuple(TpuFunctionSpec(**each) for each in raw.get("programs", ()))
    lists = {key: tuple(raw.get(key, ())) for key in ("cpu_features", "device_names")}
    return TargetSpec(**{**raw, **lists, "kernels": kernels, "programs": programs})
