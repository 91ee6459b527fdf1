"""The check of executables against JAX before a bundle is written; docs/concepts/check.md describes it."""

from sonew_compiled.check._mean import no_mean as no_mean
from sonew_compiled.check._reference import Call as Call
from sonew_compiled.check._reference import Reference as Reference
from sonew_compiled.check._run import check_executable as check_executable
from sonew_compiled.check._run import check_executables as check_executables
from sonew_compiled.check._run import why_not_checked as why_not_checked
