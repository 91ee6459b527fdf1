"""Whether what a bundle computes is what JAX computes: models, and the comparison of all their functions."""
