"""StableHLO to IREE executables."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from sonew_compiled.errors import SonewError
from sonew_compiled.lowering.bindings import refuse_too_many
from sonew_compiled.lowering.branches import has_branches, part_references
from sonew_compiled.lowering.diagnostics import compile_error
from sonew_compiled.lowering.process import run_to_end
from sonew_compiled.lowering.scratch import scratch_folder
from sonew_compiled.lowering.targets import Target, iree_compile

_GENERATED = "generated"
# The phase of the compiler after which it makes dispatches, and then code.
_EARLY = "global-optimization"
# After that phase nothing is StableHLO. For each dispatch the compiler collects the rewrites of all dialects that it
# knows, so it is the faster the fewer it knows.
_WITHOUT_STABLEHLO = "--iree-plugin=-input_stablehlo"


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
        names = ("module.mlir", "early.mlirbc", "vm.mlirbc", "module.vmfb")
        source, early, host_code, result = (scratch / name for name in names)
        source.write_bytes(stablehlo)
        # The names are relative, because the compiler writes them into the result.
        start = [iree_compile(), source.name, "--iree-input-type=stablehlo", *target.flags]
        start += [f"--compile-to={_EARLY}", "--emit-mlir-bytecode", "-o", early.name]
        command = [iree_compile(), early.name, f"--compile-from={_EARLY}", _WITHOUT_STABLEHLO, *target.flags]
        command.append(f"--iree-hal-dump-executable-configurations-to={_GENERATED}")
        # The host code of a module without branches needs no change.
        if changed := has_branches(stablehlo):
            command += ["--compile-to=vm", "--emit-mlir-bytecode", "-o", host_code.name]
        else:
            command += ["-o", result.name]
        # Without symbols a crash is reported at once. Naming the functions of the backtrace takes half a minute.
        # The temporary files go to a path without spaces, because the compiler's linker splits paths at spaces.
        environment = os.environ | {"TMPDIR": ".", "LLVM_DISABLE_SYMBOLIZATION": "1"}

        def in_two_parts(*flags: str) -> subprocess.CompletedProcess[bytes]:
            shutil.rmtree(scratch / _GENERATED, ignore_errors=True)
            process = run_to_end([*start, *flags], folder=scratch, environment=environment)
            if process.returncode == 0:
                before = process.args
                process = run_to_end([*command, *flags], folder=scratch, environment=environment)
                process.args = [*before, "&&", *process.args]  # for the log, in which both reproduce an error
            return process

        # The passes have verified the module. Another verification after each of the compiler's own passes takes a
        # quarter of its time, and is done only after a failure, for the sake of a better message. But a fault of its
        # early passes that nobody sees becomes code that computes wrong numbers. So there are two parts: the second
        # verifies what it reads, whatever the flags, which costs next to nothing.
        try:
            process = hurriedly = in_two_parts("--verify=false")
            refused = process.returncode != 0
            if target.verified_operation and not refused:
                refused = not _is_verified(scratch / _GENERATED, target.verified_operation)
            if refused:
                process = in_two_parts(*target.fallback_flags)
            if process.returncode == 0:
                refuse_too_many(scratch / _GENERATED, target, what=what)
            if changed and process.returncode == 0:
                host_code.write_bytes(part_references(host_code.read_bytes()))
                command = [iree_compile(), host_code.name, "--compile-from=vm", _WITHOUT_STABLEHLO, *target.flags]
                command += ["-o", result.name]
                process = run_to_end(command, folder=scratch, environment=environment)
        except OSError as error:
            raise SonewError(
                f"cannot compile {what} for target {target.name}: {command[0]} does not start ({error.strerror}); "
                "install iree-base-compiler again"
            ) from None
        if process.returncode == 0:
            return result.read_bytes()
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
