"""The `sonew` command line. Commands import what they need when they run: a device has neither JAX nor the compiler."""

from sonew_compiled.cli._main import main as main
