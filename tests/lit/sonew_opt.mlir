// The command itself: the artifact's round trip, the list, and one-line errors.

// RUN: %sonew-opt --artifact %t.artifact %s
// RUN: %sonew-opt %t.artifact | FileCheck %s
// CHECK-LABEL: func.func public @f(%arg0: tensor<4xf32> {sonew.name = "x"})
// CHECK:         stablehlo.add

// RUN: %sonew-opt --list | FileCheck %s --check-prefix=LIST
// LIST:      merge-exports
// LIST:      split-reductions reduce in bounded stages (limit)

// RUN: not %sonew-opt --pass nothing %s 2>&1 | FileCheck %s --check-prefix=UNKNOWN
// UNKNOWN: sonew_opt: no pass 'nothing'; the passes are: strip-shardings,

// RUN: not %sonew-opt --pass split-reductions:limit=few %s 2>&1 | FileCheck %s --check-prefix=VALUE
// VALUE: sonew_opt: pass split-reductions: 'few' is no value for limit

// RUN: not %sonew-opt --pass strip-locations:limit=1 %s 2>&1 | FileCheck %s --check-prefix=OPTION
// OPTION: sonew_opt: pass strip-locations has no option 'limit'; it has: none

// RUN: echo 'module {' | not %sonew-opt - 2>&1 | FileCheck %s --check-prefix=SYNTAX
// SYNTAX: sonew_opt: the module is not valid MLIR: {{[0-9]+:[0-9]+}}: expected

func.func public @f(%x: tensor<4xf32> {sonew.name = "x"}) -> tensor<4xf32> {
  %0 = stablehlo.add %x, %x : tensor<4xf32>
  return %0 : tensor<4xf32>
}
