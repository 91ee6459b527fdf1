"""MLIR passes over StableHLO. They know nothing of optimizers or models."""

if __name__ != "sonew_compiled.passes":
    raise ImportError("import sonew_compiled.passes, not passes: a second copy of the package would have its own types")

from sonew_compiled.passes.ir.artifact import from_bytes as from_bytes
from sonew_compiled.passes.ir.artifact import from_portable_artifact as from_portable_artifact
from sonew_compiled.passes.ir.artifact import is_bytecode as is_bytecode
from sonew_compiled.passes.ir.artifact import stablehlo_version as stablehlo_version
from sonew_compiled.passes.ir.artifact import to_bytes as to_bytes
from sonew_compiled.passes.ir.artifact import to_portable_artifact as to_portable_artifact
from sonew_compiled.passes.ir.link import link as link
from sonew_compiled.passes.ir.mlir import make_context as make_context
from sonew_compiled.passes.ir.mlir import parse as parse
from sonew_compiled.passes.ir.mlir import to_text as to_text
from sonew_compiled.passes.ir.parts import ranges_read as ranges_read
from sonew_compiled.passes.ir.signature import Signature as Signature
from sonew_compiled.passes.ir.signature import Value as Value
from sonew_compiled.passes.ir.signature import signatures as signatures
from sonew_compiled.passes.pipeline import ORDER as ORDER
from sonew_compiled.passes.pipeline import PIPELINE as PIPELINE
from sonew_compiled.passes.pipeline import pipeline as pipeline
from sonew_compiled.passes.pipeline import run_pipeline as run_pipeline
from sonew_compiled.passes.precision.policies import POLICIES as POLICIES
from sonew_compiled.passes.precision.policies import Policy as Policy
from sonew_compiled.passes.precision.policies import precision_policy as precision_policy
from sonew_compiled.passes.record import Option as Option
from sonew_compiled.passes.record import Pass as Pass
from sonew_compiled.passes.registry import REGISTRY as REGISTRY
from sonew_compiled.passes.registry import ROOMS as ROOMS
from sonew_compiled.passes.registry import parse_pass as parse_pass
