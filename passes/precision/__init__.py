"""The passes of precision policies, and the policies."""
