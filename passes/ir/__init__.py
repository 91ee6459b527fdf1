"""MLIR for all passes, with a file for each concept."""
