"""What each command says that it needs where an extra is not installed, and the hint that it gives."""

from dataclasses import dataclass

# A model of each library, by its file, as `sonew compile` takes it.
MODELS = {
    "of_flax.py": "import flax.linen as nn",
    "of_equinox.py": "from sonew_compiled.models import from_equinox\nmodel = from_equinox(None, None, None)",
    "of_haiku.py": "from sonew_compiled.models import from_haiku\nmodel = from_haiku(None, None, None)",
}


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a program says that it needs, the extras that its hint names, and the files of ours that make the hint."""

    program: str
    said: str
    extras: str
    by: str
    code: int = 1


COMPILER = "jax, optax, iree.compiler"
DRAWN = "matplotlib, jinja2, plotly"
BARE = (
    Need(
        program="sonew compile", said=f"sonew: compiling needs {COMPILER}, which", extras="compile", by="cli/_compile"
    ),
    Need(
        program="sonew compile --target tpu",
        said=f"sonew: compiling needs {COMPILER}, libtpu, which are not",
        extras="compile,tpu",
        by="cli/_compile",
    ),
    Need(
        program="sonew run",
        said="sonew: no bundle given, and the compiler is not installed here",
        extras="compile",
        by="cli/_run",
    ),
    *(
        Need(
            program=f"sonew run BUNDLE --log {name}",
            said=f"sonew: sonew run --log {name} needs {name}, which is not installed",
            extras=name,
            by="cli/_run",
        )
        for name in ("tensorboard", "wandb", "mlflow")
    ),
    Need(
        program="sonew run BUNDLE --workers 2",
        said="sonew: several workers need mpirun, which is not installed",
        extras="mpi",
        by="runtime/launcher",
    ),
    Need(
        program="env OMPI_COMM_WORLD_SIZE=2 sonew run BUNDLE --data mnist-10k",
        said="sonew: MPI has started 2 workers, and mpi4py cannot be used here",
        extras="mpi",
        by="runtime/connect",
        code=2,
    ),
    Need(  # a GPU would have to be there for `sonew run --exchange-by nccl` to come to it
        program="python -c 'from sonew_compiled.runtime.nccl import _nccl; _nccl()'",
        said="sonew_compiled.errors.UsageError: --exchange-by nccl needs libnccl.so.2, which cannot be loaded",
        extras="nccl",
        by="runtime/nccl",
    ),
    Need(
        program="sonew tune --trials 1",
        said=f"sonew: sonew tune needs {COMPILER}, optuna, which are not installed",
        extras="tune",
        by="cli/_tune",
    ),
    *(
        Need(
            program=program,
            said=f"sonew: sonew bench needs {COMPILER}, {DRAWN}, psutil, which are not installed",
            extras="bench",
            by="cli/_bench",
        )
        for program in ("sonew bench", "sonew bench --preset speed")
    ),
    Need(
        program="sonew bench merge ROWS -o both",
        said=f"sonew: sonew bench merge needs {DRAWN}, which are not installed",
        extras="bench",
        by="cli/_bench_rows",
    ),
    Need(
        program="sonew bench export ROWS -o rows.parquet",
        said="sonew: a Parquet file needs pyarrow, which is not installed",
        extras="parquet",
        by="bench/export",
    ),
    Need(
        program="sonew plot ROWS",
        said="sonew: sonew plot needs matplotlib, which is not installed",
        extras="plot",
        by="cli/_plot",
    ),
    Need(
        program="sonew sign BUNDLE --key KEY",
        said="sonew: sonew sign needs cryptography, which is not installed",
        extras="sign",
        by="cli/_sign",
    ),
    Need(
        program="sonew run BUNDLE --trusted-keys KEY",
        said="sonew: --trusted-keys needs cryptography, which is not installed",
        extras="sign",
        by="cli/_options",
    ),
    Need(
        program="sonew export BUNDLE --checkpoint WEIGHTS -o infer.bundle",
        said=f"sonew: a bundle for inference needs {COMPILER}, which are not installed",
        extras="compile",
        by="cli/_export",
    ),
    Need(
        program="sonew inspect --kernels CUDA",
        said="no figures of kernels for cuda:sm_80: CUDA's assembler was not there",
        extras="cuda",
        by="cli/_inspect",
        code=0,
    ),
    Need(
        program="sonew targets",
        said="to compile, pip",
        extras="compile",
        by="lowering/targets/_tools",
        code=0,
    ),
    Need(
        program="python -c 'from sonew_compiled import sonew'",
        said="ModuleNotFoundError: sonew_compiled.sonew needs jax, which is not installed",
        extras="compile",
        by="__init__",
    ),
)
WITH_COMPILER = (
    Need(
        program="sonew compile --model of_flax:model",
        said="sonew: --model of_flax:model: importing of_flax needs flax, which is not installed",
        extras="flax",
        by="models/_load",
        code=2,
    ),
    *(
        Need(
            program=f"sonew compile --model of_{name}:model",
            said=f"sonew: a model of {name} needs {name}, which is not installed",
            extras=name,
            by="models/_adapted",
        )
        for name in ("equinox", "haiku")
    ),
)
NEEDS = (*BARE, *WITH_COMPILER)
