"""The runtime: loads a bundle and trains from it, without importing JAX or the compiler.

`docs/how-to/embed.md` shows how a program uses it. Arrays are NumPy's throughout.
"""

if __name__ != "sonew_compiled.runtime":
    raise ImportError(
        "import sonew_compiled.runtime, not runtime: a second copy of the package would have its own types"
    )

import importlib.metadata

from sonew_compiled.errors import SonewError as SonewError
from sonew_compiled.errors import UsageError as UsageError
from sonew_compiled.runtime.bundle import Bundle as Bundle
from sonew_compiled.runtime.bundle import choose_target as choose_target
from sonew_compiled.runtime.bundle import cpu_flags as cpu_flags
from sonew_compiled.runtime.bundle import open_bundle as open_bundle
from sonew_compiled.runtime.bundle import why_not_here as why_not_here
from sonew_compiled.runtime.checkpoint import Checkpoint as Checkpoint
from sonew_compiled.runtime.checkpoint import find_checkpoint as find_checkpoint
from sonew_compiled.runtime.checkpoint import load_checkpoint as load_checkpoint
from sonew_compiled.runtime.checkpoint import save_checkpoint as save_checkpoint
from sonew_compiled.runtime.connect import connect as connect
from sonew_compiled.runtime.data import BoundData as BoundData
from sonew_compiled.runtime.data import Dataset as Dataset
from sonew_compiled.runtime.data import bind as bind
from sonew_compiled.runtime.data import load_dataset as load_dataset
from sonew_compiled.runtime.device import DEFAULT_DEVICE as DEFAULT_DEVICE
from sonew_compiled.runtime.device import Device as Device
from sonew_compiled.runtime.device import DeviceInfo as DeviceInfo
from sonew_compiled.runtime.device import list_devices as list_devices
from sonew_compiled.runtime.device import missing_drivers as missing_drivers
from sonew_compiled.runtime.device import open_device as open_device
from sonew_compiled.runtime.evaluate import Evaluation as Evaluation
from sonew_compiled.runtime.evaluate import evaluate as evaluate
from sonew_compiled.runtime.evaluate import evaluate_all as evaluate_all
from sonew_compiled.runtime.evaluate import predict as predict
from sonew_compiled.runtime.folder import RunFolder as RunFolder
from sonew_compiled.runtime.interruption import Interrupted as Interrupted
from sonew_compiled.runtime.manifest import Manifest as Manifest
from sonew_compiled.runtime.metrics import EpochMetrics as EpochMetrics
from sonew_compiled.runtime.metrics import read_metrics as read_metrics
from sonew_compiled.runtime.picture import reconstruction_grid as reconstruction_grid
from sonew_compiled.runtime.program import Program as Program
from sonew_compiled.runtime.schedule import learning_rates as learning_rates
from sonew_compiled.runtime.settings import resumed_settings as resumed_settings
from sonew_compiled.runtime.state import TrainingState as TrainingState
from sonew_compiled.runtime.train import DivergedError as DivergedError
from sonew_compiled.runtime.train import train as train
from sonew_compiled.runtime.train_result import TrainResult as TrainResult
from sonew_compiled.runtime.trained import Trained as Trained
from sonew_compiled.runtime.trained import load_trained as load_trained
from sonew_compiled.runtime.weights import load_parameters as load_parameters
from sonew_compiled.runtime.weights import load_weights as load_weights
from sonew_compiled.runtime.weights import save_parameters as save_parameters
from sonew_compiled.runtime.workers import Alone as Alone
from sonew_compiled.runtime.workers import Workers as Workers
from sonew_compiled.train_settings import SCHEDULES as SCHEDULES
from sonew_compiled.train_settings import TrainSettings as TrainSettings

__version__ = importlib.metadata.version("sonew-compiled")

__all__ = [
    "DEFAULT_DEVICE",
    "SCHEDULES",
    "Alone",
    "BoundData",
    "Bundle",
    "Checkpoint",
    "Dataset",
    "Device",
    "DeviceInfo",
    "DivergedError",
    "EpochMetrics",
    "Evaluation",
    "Interrupted",
    "Manifest",
    "Program",
    "RunFolder",
    "SonewError",
    "TrainResult",
    "TrainSettings",
    "Trained",
    "TrainingState",
    "UsageError",
    "Workers",
    "__version__",
    "bind",
    "choose_target",
    "connect",
    "cpu_flags",
    "evaluate",
    "evaluate_all",
    "find_checkpoint",
    "learning_rates",
    "list_devices",
    "load_checkpoint",
    "load_dataset",
    "load_parameters",
    "load_trained",
    "load_weights",
    "missing_drivers",
    "open_bundle",
    "open_device",
    "predict",
    "read_metrics",
    "reconstruction_grid",
    "resumed_settings",
    "save_checkpoint",
    "save_parameters",
    "train",
    "why_not_here",
]
