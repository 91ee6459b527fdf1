"""Loads a bundle and trains from it. Imports neither JAX nor the compiler."""

if __name__ != "sonew_compiled.runtime":
    raise ImportError("import sonew_compiled.runtime, not runtime: a second copy of the package would have its own types")
