"""The names by which the parts of the project agree on tensors, functions and files. Imports nothing of the project.

The tracer writes roles and names on the arguments and results of the functions that it traces; passes keep them, the
manifest lists them, and the runtime, the checkpoints and the benchmarks read them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum


class Role(StrEnum):
    """The role of a tensor in a function of a bundle: the value of `sonew.role`, and `role` in the manifest."""

    PARAMETER = "parameter"
    """A parameter of the model."""
    OPTIMIZER = "optimizer"
    """A tensor of the optimizer's state, or of the state that passes add, such as the scale of the loss."""
    MODEL_STATE = "model_state"
    """A tensor of the model's state that no gradient changes, such as a running average."""
    AVERAGE = "average"
    """A tensor of the exponential average of the parameters, with which evaluation and predictions are made."""
    RANDOM = "random"
    """A source of a step's random key: the seed, and the number of steps done."""
    BATCH = "batch"
    """A field of the batch."""
    GRADIENT = "gradient"
    """A signal of the backward pass, as an argument of an update that is compiled alone."""
    SEED = "seed"
    LEARNING_RATE = "learning_rate"
    SETTING = "setting"
    """A setting of the optimizer that a step takes at every call."""
    LOSS = "loss"
    """The loss of a batch, or one for each example."""
    METRIC = "metric"
    """A metric: a number for each example, or the sum or the count of a quotient."""
    PREDICTION = "prediction"

    @property
    def root(self) -> str:
        """The start of the names of its tensors, which are paths in a tree: `params` of `params/layer0/kernel`."""
        return _ROOTS[self]

    def holds(self, name: str) -> bool:
        """Whether a tensor of this name is in the role's tree, for files without roles; manifests have roles."""
        return name == self.root or name.startswith(f"{self.root}/")


_ROOTS = {
    Role.PARAMETER: "params",
    Role.OPTIMIZER: "optimizer",
    Role.MODEL_STATE: "state",
    Role.AVERAGE: "average",
    Role.RANDOM: "random",
    Role.BATCH: "batch",
    Role.GRADIENT: "gradients",
    Role.METRIC: "metrics",
    Role.PREDICTION: "prediction",
}

STATE_ROLES = (Role.PARAMETER, Role.OPTIMIZER, Role.MODEL_STATE, Role.AVERAGE, Role.RANDOM)
"""The training state: what `init` gives and a step takes and gives; it stays on the device and is in checkpoints."""

UNDONE_ROLES = (Role.PARAMETER, Role.OPTIMIZER, Role.MODEL_STATE, Role.AVERAGE)
"""The state that a step leaves unchanged if its gradients are not finite; the random key goes on as in any step."""

EVALUATED_ROLES = (Role.PARAMETER, Role.AVERAGE, Role.MODEL_STATE)
"""The state that `eval_step` and `predict` read; in place of trained parameters their average, if there is one."""

STORED_ROLES = (Role.PARAMETER, Role.OPTIMIZER)
"""The state that a precision policy stores in fewer bits."""


AVERAGED = f"{_ROOTS[Role.AVERAGE]}/weights"
"""The root of the averages of parameters: `average/weights/layer0/kernel`."""


def average_name(parameter: str) -> str:
    """The name of the average of a parameter."""
    return f"{AVERAGED}{parameter.removeprefix(_ROOTS[Role.PARAMETER])}"


def parameter_name(average: str) -> str:
    """The name of the parameter of which this is the average: the inverse of `average_name`."""
    return f"{_ROOTS[Role.PARAMETER]}{average.removeprefix(AVERAGED)}"


def role_of_root(root: str) -> Role:
    """The role whose tree has this root."""
    return next(role for role, its_root in _ROOTS.items() if its_root == root)


def path_in_tree(name: str, role: Role) -> str:
    """The name without the root of the role's tree: `image` for `batch/image`, and `batch` for a bare `batch`."""
    return name.removeprefix(f"{role.root}/")


class Driver(StrEnum):
    """The kind of device that runs an executable, as `driver` of a target and of the manifest."""

    LOCAL = "local"
    """A processor."""
    VULKAN = "vulkan"
    CUDA = "cuda"
    HIP = "hip"
    METAL = "metal"
    TPU = "tpu"
    """Not one of IREE's drivers."""

    @property
    def target(self) -> str:
        """A target whose code this kind of device runs."""
        return {Driver.LOCAL: "cpu", Driver.HIP: "rocm"}.get(self, self.value)


# The functions of a bundle.
INIT = "init"
TRAIN_STEP = "train_step"
EVAL_STEP = "eval_step"
PREDICT = "predict"
EXPORTS = (INIT, TRAIN_STEP, EVAL_STEP, PREDICT)

# The tensors that have one name in every bundle.
SEED = "seed"
LEARNING_RATE = "learning_rate"
LOSS = "loss"
LOSSES = "losses"
PREDICTION = "prediction"

# The two parts of a metric that is a quotient, after its name.
SUM = "/sum"
COUNT = "/count"

BUCKET = "bucket"
"""A vector of float32: the loss of a micro-batch, or the sum over several, and then the signals of the gradients."""

# The seam of a step: the functions that `train_step` calls, as the tracer and, after `merge-exports`, the passes name
# them. A function is found in the merged module under the name of its export and its own. `split-step` makes exports of
# the same names, which a bundle has that was compiled for micro-batches.
GRADIENTS = "gradients"
UPDATE = "update"

EXCHANGES = ("f32", "bf16")
"""The types of the numbers in a bucket, beside the loss; numbers of bfloat16 are in it as float32."""

# The parts of `update` that `split-update` makes, with which workers divide the optimizer's state.
UPDATE_COMMON = "update_common"
"""The part that every worker does: the state that all other parts read, the loss, and the numbers of the whole."""


def update_part(number: int) -> str:
    """The name of a part of `update`, which updates some tensors of the state."""
    return f"{UPDATE}_{number}"


def is_update(name: str) -> bool:
    """Whether an export is `update` or a part of it."""
    return name == UPDATE or name.startswith(f"{UPDATE}_")


def merged_name(export: str, helper: str) -> str:
    """The name that `merge-exports` gives a helper of an export: `train_step__update`."""
    return f"{export}__{helper}"


LOOPED = (TRAIN_STEP, GRADIENTS, EVAL_STEP)
"""The functions of a bundle that a run calls with the same examples again and again."""

# The dtypes of fields whose examples can be taken from a data set on the device. Shorter ones are copied from the host:
# there is less to copy, and some targets store them in another way.
_TAKEN = ("float32", "int32", "uint32")
SCALED = ("uint8", "float32")
"""The dtypes of data and of a field of the batch whose numbers are those of the data over 255."""


def takes_of(shape: Sequence[int], dtype: str) -> dict[str, str]:
    """The exports of an executable that take a field of a batch from a data set on the device, by the data's dtype.

    Such an export takes the examples as a matrix with a row for each, and the int32 indices of those of the batch. Its
    name says all that it depends on, so that fields, and functions, of one kind share it.

    Args:
      shape: the field's, the examples of a batch first.
      dtype: the field's.
    """
    if dtype not in _TAKEN or not shape or not math.prod(shape):
        return {}
    # A byte alone is rather a label than an intensity.
    dtypes = (dtype, SCALED[0]) if dtype == SCALED[1] and math.prod(shape[1:]) > 1 else (dtype,)
    return {data: f"take_{data}_{dtype}_{'x'.join(map(str, shape))}" for data in dtypes}


IN_FLOAT32 = "in_float32_"
"""The start of the name of a function that computes in float32 under every precision policy."""

QUANTIZE, DEQUANTIZE = f"{IN_FLOAT32}quantize_", f"{IN_FLOAT32}dequantize_"
"""The starts of the names of two functions: from an array to codes and scales, and back."""

STOCHASTICALLY = "_stochastically"
"""The end of the name of a function that rounds so that the mean is the number."""

# Attributes of arguments and results in the traced module.
NAME_ATTRIBUTE = "sonew.name"
ROLE_ATTRIBUTE = "sonew.role"
DONATE_ATTRIBUTE = "sonew.donate"
"""On an argument: the caller gives its buffer up."""

# The files of a bundle, beside one executable for each target.
MANIFEST_FILE = "manifest.json"
STABLEHLO_FILE = "module.stablehlo"
PARAMETERS_FILE = "params.safetensors"
SIGNATURE_FILE = "manifest.sig"
