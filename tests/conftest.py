"""Fixtures that many tests share, with a file of `plugins/` for each concept."""

import gc
import os
import signal

from plugins.compile_once import share_what_is_compiled

# JAX must look for no accelerator, because libtpu fills stderr if there is none.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests run XLA's code a few times: nearly all of its time goes into making code fast, and its idle threads spin.
# Its fusion must stay: without it XLA computes wrong numbers, in the gradient of a product of two axes for one.
_XLA = {
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": "true",
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_multi_thread_eigen": "false",
    "xla_cpu_parallel_codegen_split_count": "1",
}
os.environ.setdefault("XLA_FLAGS", " ".join(f"--{name}={value}" for name, value in _XLA.items()))
# The software Vulkan driver computes in the calling thread: each test process has about one core.
os.environ.setdefault("LP_NUM_THREADS", "0")
# A program that is started in the background, or by nohup, has its children ignore these. Tests send them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
share_what_is_compiled()
# Traces are millions of small objects, most of which live long: looking for cycles among them took a fifth of the time.
gc.set_threshold(100_000, 50, 50)

pytest_plugins = [
    "plugins.command_line",
    "plugins.compiler",
    "plugins.devices",
    "plugins.helpers",
    "plugins.memory",
    "plugins.parts",
    "plugins.tiny",
    "plugins.wheel",
]
