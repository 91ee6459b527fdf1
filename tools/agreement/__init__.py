"""The agreement of bundles with JAX: models, and the comparison of all their functions."""
