"""The passes of targets."""
