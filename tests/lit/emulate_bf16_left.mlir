// RUN: %sonew-opt --pass emulate-bf16 %s | FileCheck %s

// A module that still computes on bf16 is left as it is.
// CHECK: func.func public @f(%arg0: tensor<4xbf16>
// CHECK: stablehlo.add %arg0, %arg0 : tensor<4xbf16>
func.func public @f(%x: tensor<4xbf16> {sonew.name = "x"}) -> (tensor<4xbf16> {sonew.name = "y"}) {
  %0 = stablehlo.add %x, %x : tensor<4xbf16>
  return %0 : tensor<4xbf16>
}
