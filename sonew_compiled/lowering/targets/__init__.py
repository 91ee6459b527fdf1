"""The targets: their names, the compiler's flags for each, the limits of each, and the devices that run it."""

from sonew_compiled.lowering.targets._cpu import pin_host as pin_host
from sonew_compiled.lowering.targets._table import processor_names as processor_names
from sonew_compiled.lowering.targets._table import resolve_target as resolve_target
from sonew_compiled.lowering.targets._table import resolve_targets as resolve_targets
from sonew_compiled.lowering.targets._table import target_names as target_names
from sonew_compiled.lowering.targets._target import Target as Target
from sonew_compiled.lowering.targets._tools import extras_of as extras_of
from sonew_compiled.lowering.targets._tools import find_ptxas as find_ptxas
from sonew_compiled.lowering.targets._tools import has_compiler as has_compiler
from sonew_compiled.lowering.targets._tools import iree_compile as iree_compile
from sonew_compiled.lowering.targets._tools import why_not_compiled as why_not_compiled
