"""Whether an executable computes what JAX computes, tried before the bundle is written; docs/check.md says how."""

from sonew_compiled.check._reference import Call as Call
from sonew_compiled.check._reference import Reference as Reference
from sonew_compiled.check._run import check_executable as check_executable
from sonew_compiled.check._run import why_not_checked as why_not_checked
