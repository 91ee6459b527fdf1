"""The portable artifact: StableHLO as versioned bytes.

The bytes are MLIR bytecode of the VHLO dialect, and StableHLO promises to keep them readable for five years.
`iree-compile` reads them with `--iree-input-type=stablehlo`; its `auto` does not recognise them.
"""

from __future__ import annotations

from sonew_compiled.errors import UsageError
from sonew_compiled.passes.ir.mlir import first_diagnostic, ir, make_context, parse, stablehlo, to_text
from sonew_compiled.passes.ir.uses import operations_in

ARTIFACT_VERSION = "1.13.0"
"""The StableHLO version that artifacts are written in.

It is fixed, and is not the version of the installed jaxlib: a newer jaxlib alone must neither change the bytes nor
write artifacts that an older compiler refuses. Raise it only when an operation needs it.
"""

# The first bytes of MLIR's bytecode.
_BYTECODE = b"ML\xefR"


def stablehlo_version() -> str:
    """Return the StableHLO version that artifacts are written in."""
    return ARTIFACT_VERSION


def is_bytecode(content: bytes) -> bool:
    """Whether these bytes are MLIR bytecode, as every portable artifact is."""
    return content.startswith(_BYTECODE)


def to_portable_artifact(module: ir.Module) -> bytes:
    """Return the module as a portable artifact of version `ARTIFACT_VERSION`; the module is left as it is.

    Raises:
        UsageError: the module has something that the artifact cannot hold, such as an operation of another dialect.
    """
    copy = ir.Module.parse(module.operation.get_asm(binary=True), module.context)  # serializing consumes its module
    try:
        return bytes(stablehlo.serialize_portable_artifact(copy, ARTIFACT_VERSION))
    except (ValueError, ir.MLIRError) as error:
        raise UsageError(_why_not(module)) from error


def from_portable_artifact(artifact: bytes, context: ir.Context | None = None) -> ir.Module:
    """Return the module that a portable artifact holds.

    Raises:
        UsageError: the bytes are no portable artifact, or one newer than the installed jaxlib reads.
    """
    context = context or make_context()
    try:
        return stablehlo.deserialize_portable_artifact(context, artifact)
    except (ValueError, ir.MLIRError) as error:
        detail = f" ({first_diagnostic(error)})" if isinstance(error, ir.MLIRError) else ""
        version = stablehlo.get_current_version()
        raise UsageError(f"not a StableHLO portable artifact of version {version} or older{detail}") from error


def to_bytes(module: ir.Module) -> bytes:
    """Return the module as a portable artifact if that can hold it, else as text; `iree-compile` reads both.

    The text is in the generic form, because the other forms differ between versions of MLIR.
    """
    return to_text(module, generic=True).encode() if _foreign(module) else to_portable_artifact(module)


def from_bytes(content: bytes) -> ir.Module:
    """Return the module that `to_bytes` gave."""
    if is_bytecode(content):
        return from_portable_artifact(content)
    context = make_context()
    context.allow_unregistered_dialects = True
    return parse(content.decode(), context)


def _why_not(module: ir.Module) -> str:
    """Say, as far as it is known, which part of the module cannot be serialized."""
    if foreign := _foreign(module):
        return f"a portable artifact holds StableHLO only; the module also has: {', '.join(sorted(foreign))}"
    return (
        f"the module does not fit a portable artifact of StableHLO {ARTIFACT_VERSION}: "
        "it has an attribute or an operation of another dialect or of a newer version"
    )


def _foreign(module: ir.Module) -> set[str]:
    """The operations of other dialects than StableHLO."""
    names = {op.name for op in operations_in(module.operation)}
    return {name for name in names if name.partition(".")[0] not in ("builtin", "func", "stablehlo")}
