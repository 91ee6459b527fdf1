"""MLIR passes over StableHLO. They know nothing of optimizers or models."""

if __name__ != "sonew_compiled.passes":
    raise ImportError("import sonew_compiled.passes, not passes: a second copy of the package would have its own types")
