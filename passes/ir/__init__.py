"""What all passes need of MLIR: one concept a file."""
