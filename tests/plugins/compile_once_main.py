"""`python compile_once_main.py IREE_COMPILE FOLDER ARGUMENT...`: IREE's compiler, or what it made of the same before.

What it makes depends on the arguments and on the input alone. An error or a crash is never kept. The compiler runs in
one thread, as each core has a test process; the code is the same, and waiting threads cost a twelfth of the time.
It imports little, because it starts two or three times for each module.
"""

import hashlib
import os
import signal
import sys
import time

# A folder that the compiler fills beside its output.
_DUMP = "--iree-hal-dump-executable-configurations-to="
_ONE_THREAD = "--mlir-disable-threading"


def _main(compiler: str, folder: str, arguments: list[str]) -> int:
    inputs = [each for index, each in enumerate(arguments) if _is_input(arguments, index)]
    command = [compiler, *arguments, *(() if _ONE_THREAD in arguments else (_ONE_THREAD,))]
    if len(inputs) != 1:
        os.execv(compiler, command)
    content = sys.stdin.buffer.read() if inputs[0] == "-" else _read(inputs[0])
    # The name of the input, which is an argument, stands in what is compiled.
    asked = "\0".join(arguments).encode()
    kept = os.path.join(folder, hashlib.sha256(len(asked).to_bytes(8, "big") + asked + content).hexdigest())
    made = {"output": _output(arguments), "dump": _dumped(arguments)}
    if os.path.exists(kept):
        for name, path in made.items():
            if path and os.path.exists(os.path.join(kept, name)):
                _copy(os.path.join(kept, name), path)
        _say(kept)
        return 0
    # Whole or not at all: another process may make the same, and this one may be killed.
    part = os.path.join(folder, f"part-{os.getpid()}-{time.time_ns()}")
    os.mkdir(part)
    code = _compile(command, content if inputs[0] == "-" else None, part)
    _say(part)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    if code == 0:
        try:
            for name, path in made.items():
                if path and os.path.exists(path):
                    _copy(path, os.path.join(part, name))
            os.rename(part, kept)
        except OSError:  # another process was first, or a test has filled the disk
            pass
    return code


def _compile(command: list[str], given: bytes | None, part: str) -> int:
    """Runs the compiler, and keeps what it says in two files; its exit code, or minus the signal that ended it."""
    writing = os.O_WRONLY | os.O_CREAT
    actions = [
        (os.POSIX_SPAWN_OPEN, stream, os.path.join(part, name), writing, 0o600)
        for stream, name in ((1, "stdout"), (2, "stderr"))
    ]
    if given is not None:
        _write(os.path.join(part, "stdin"), given)
        actions.append((os.POSIX_SPAWN_OPEN, 0, os.path.join(part, "stdin"), os.O_RDONLY, 0))
    process = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _is_input(arguments: list[str], index: int) -> bool:
    each = arguments[index]
    return each == "-" or (not each.startswith("-") and (index == 0 or arguments[index - 1] != "-o"))


def _output(arguments: list[str]) -> str:
    return arguments[arguments.index("-o") + 1] if "-o" in arguments else ""


def _dumped(arguments: list[str]) -> str:
    return next((each.removeprefix(_DUMP) for each in arguments if each.startswith(_DUMP)), "")


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(content)


def _copy(source: str, target: str) -> None:
    """Copies a file, or a folder of files."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
        for name in os.listdir(source):
            _copy(os.path.join(source, name), os.path.join(target, name))
    else:
        _write(target, _read(source))


def _say(folder: str) -> None:
    for stream, name in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
        stream.buffer.write(_read(os.path.join(folder, name)))
        stream.flush()


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2], sys.argv[3:]))
