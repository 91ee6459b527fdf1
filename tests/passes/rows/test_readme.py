"""The example in the package's README agrees with the pass."""

import re
from pathlib import Path

from sonew_compiled import passes

README = Path(__file__).parents[3] / "passes" / "rows" / "README.md"


def made_of(before: str) -> tuple[str, str]:
    """The pass's function for the four lines, and the loop over the columns of inner rows."""
    module = passes.parse(f"""
func.func public @main(%x: tensor<64x32xf32>) -> (tensor<64x32xf32>, tensor<f32>) {{
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %zeros = stablehlo.constant dense<0.0> : tensor<1x32xf32>
  {before}
  return %y, %s : tensor<64x32xf32>, tensor<f32>
}}""")
    passes.run_pipeline(module, [passes.parse_pass("stream-rows")])
    lines = passes.to_text(module).splitlines()
    main = next(i for i, line in enumerate(lines) if "func.func public @main" in line)
    begin = next(i for i, line in enumerate(lines) if re.search(r"scf\.for %arg5", line))
    end = next(i for i, line in enumerate(lines) if i > begin and line.strip() == "}")
    indent = len(lines[begin]) - len(lines[begin].lstrip())
    return "\n".join(line[2:] for line in lines[main:-1]), "\n".join(line[indent:] for line in lines[begin : end + 1])


def test_the_example_is_what_the_pass_makes() -> None:
    before, *after = re.findall(r"```mlir\n(.*?)\n?```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(before.splitlines()) == 4
    assert list(made_of(before)) == after
