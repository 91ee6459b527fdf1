"""The record of each optimizer, with the settings that ship. A device's command line loads it, so JAX must not.

Most settings were found by `sonew tune` in runs of 20 epochs, the others by `tools/sweep.py`, on the autoencoder, full
MNIST and batch 1000. `docs/internals/lab-notes.md` says how, and the runs are in `docs/results/`.
"""

from sonew_compiled.presets._choose import DEFAULT_OPTIMIZER as DEFAULT_OPTIMIZER
from sonew_compiled.presets._choose import OPTIMIZERS as OPTIMIZERS
from sonew_compiled.presets._choose import PRESETS as PRESETS
from sonew_compiled.presets._choose import RECORDS as RECORDS
from sonew_compiled.presets._choose import SETTINGS as SETTINGS
from sonew_compiled.presets._choose import OptimizerSettings as OptimizerSettings
from sonew_compiled.presets._choose import long_preset_of as long_preset_of
from sonew_compiled.presets._choose import optimizer_settings as optimizer_settings
from sonew_compiled.presets._choose import preset_for as preset_for
from sonew_compiled.presets._choose import record_of as record_of
from sonew_compiled.presets._choose import runtime_settings_of as runtime_settings_of
from sonew_compiled.presets._choose import settings_of as settings_of
from sonew_compiled.presets._record import Hyperparameter as Hyperparameter
from sonew_compiled.presets._record import LongPreset as LongPreset
from sonew_compiled.presets._record import OptimizerRecord as OptimizerRecord
from sonew_compiled.presets._record import Start as Start
from sonew_compiled.presets._record import Value as Value
from sonew_compiled.presets._studies import best_of_studies as best_of_studies

PRECISIONS = ("f32", "bf16", "bf16-pure", "bf16-mixed", "f16-mixed", "bf16-sr")
"""The names of the precision policies, which `sonew_compiled.passes` defines."""
