"""What many tests share, a file of `plugins/` for each concept."""

import os

# JAX is to look for no accelerator: where there is none, libtpu fills stderr.
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
