// RUN: %sonew-opt --pass strip-locations --locations %s | FileCheck %s

// CHECK:       #loc = loc(unknown)
// CHECK-NOT:   model.py
// CHECK:         stablehlo.add %arg0, %arg0 : tensor<4xf32> loc(#loc)
// CHECK-NOT:   model.py
func.func @f(%x: tensor<4xf32> loc("model.py":1:2)) -> tensor<4xf32> {
  %0 = stablehlo.add %x, %x : tensor<4xf32> loc(callsite("layer" at "model.py":3:4))
  return %0 : tensor<4xf32> loc("model.py":5:6)
} loc("model.py":7:8)
