"""Fixtures that many tests share, with a file of `plugins/` for each concept."""

import os

# JAX must look for no accelerator, because libtpu fills stderr if there is none.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

pytest_plugins = [
    "plugins.command_line",
    "plugins.compiler",
    "plugins.devices",
    "plugins.helpers",
    "plugins.parts",
    "plugins.tiny",
    "plugins.wheel",
]
