"""The SONew optimizer, in JAX and optax."""

from sonew_compiled.optimizer._logdet import Preconditioner as Preconditioner
from sonew_compiled.optimizer._logdet import preconditioner as preconditioner
from sonew_compiled.optimizer._precision import statistics_dtype as statistics_dtype
from sonew_compiled.optimizer._registry import optimizer_factory as optimizer_factory
from sonew_compiled.optimizer._sonew import ScaleBySonewState as ScaleBySonewState
from sonew_compiled.optimizer._sonew import scale_by_sonew as scale_by_sonew
from sonew_compiled.optimizer._sonew import sonew as sonew
