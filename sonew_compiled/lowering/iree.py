"""StableHLO to IREE executables."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from sonew_compiled.errors import SonewError
from sonew_compiled.lowering.bindings import refuse_too_many
from sonew_compiled.lowering.diagnostics import compile_error
from sonew_compiled.lowering.host_code import mend_host_code
from sonew_compiled.lowering.process import run_to_end
from sonew_compiled.lowering.scratch import scratch_folder
from sonew_compiled.lowering.targets import Target, iree_compile

_GENERATED = "generated"
# After this phase nothing is StableHLO. For each dispatch that the compiler makes it collects the rewrites of all
# dialects that it knows, so it is the faster the fewer it knows.
_EARLY = "global-optimization"
_WITHOUT_STABLEHLO = "--iree-plugin=-input_stablehlo"
_HOST_CODE, _END = "vm", "end"


def lower_iree(stablehlo: bytes, target: Target, *, what: str) -> bytes:
    """Compiles a StableHLO portable artifact, or MLIR text, for one target of IREE.

    Args:
      stablehlo: the module.
      target: the target to compile for.
      what: names the module in errors, such as `autoencoder with tridiag-sonew`.

    Returns:
      The bytes of the `.vmfb`; the same input and compiler give the same bytes.

    Raises:
      SonewError: the compiler refused it; see `compile_error`. Or the runtime would; see `refuse_too_many`.
    """
    with scratch_folder() as scratch:
        source = scratch / "module.mlir"
        source.write_bytes(stablehlo)
        # Without symbols a crash is reported at once. Naming the functions of the backtrace takes half a minute.
        # The temporary files go to a path without spaces, because the compiler's linker splits paths at spaces.
        environment = os.environ | {"TMPDIR": ".", "LLVM_DISABLE_SYMBOLIZATION": "1"}

        def compiled(*flags: str) -> subprocess.CompletedProcess[bytes]:
            """Runs the compiler once for each phase, until one fails; the last run."""
            shutil.rmtree(scratch / _GENERATED, ignore_errors=True)
            # The names are relative, because the compiler writes them into the result.
            command = [iree_compile(), source.name, "--iree-input-type=stablehlo"]
            before: list[str] = []
            for phase in (_EARLY, _HOST_CODE, _END):
                result = scratch / f"{phase}.bc"
                command += [f"--compile-to={phase}", "--emit-mlir-bytecode", *target.flags, *flags, "-o", result.name]
                process = run_to_end(command, folder=scratch, environment=environment)
                process.args = [*before, *process.args]  # for the log, in which all together reproduce an error
                if process.returncode:
                    break
                if phase == _HOST_CODE:
                    result.write_bytes(mend_host_code(result.read_bytes()))
                before = [*process.args, "&&"]
                command = [iree_compile(), result.name, f"--compile-from={phase}", _WITHOUT_STABLEHLO]
                command.append(f"--iree-hal-dump-executable-configurations-to={_GENERATED}")
            return process

        # The passes have verified the module. Another verification after each of the compiler's own passes takes a
        # quarter of its time, and is done only after a failure, for the sake of a better message. But a fault of its
        # early passes that nobody sees becomes code that computes wrong numbers. It is seen by the next run, which
        # verifies what it reads, whatever the flags, and which costs next to nothing.
        try:
            process = hurriedly = compiled("--verify=false")
            refused = process.returncode != 0
            if target.verified_operation and not refused:
                refused = not _is_verified(scratch / _GENERATED, target.verified_operation)
            if refused:
                process = compiled(*target.fallback_flags)
        except OSError as error:
            raise SonewError(
                f"cannot compile {what} for target {target.name}: {iree_compile()} does not start ({error.strerror}); "
                "install iree-base-compiler again"
            ) from None
        if process.returncode == 0:
            refuse_too_many(scratch / _GENERATED, target, what=what)
            return (scratch / f"{_END}.bc").read_bytes()
        # The flags of the second try can have a fault of their own. Without any it is the first, with a better message.
        before = hurriedly if refused and target.fallback_flags else None
        raise compile_error(
            compiler="iree-compile", process=process, before=before, folder=scratch, target=target, what=what
        )


def _is_verified(folder: Path, operation: str) -> bool:
    """Whether IREE's verifier accepts the code in the folder that contains the operation."""
    import iree.compiler.ir as ir

    with ir.Context():
        try:
            for path in folder.glob("*.mlir"):
                if operation in (text := path.read_text(encoding="utf-8")):
                    ir.Module.parse(text)
        except ir.MLIRError:
            return False
    return True
