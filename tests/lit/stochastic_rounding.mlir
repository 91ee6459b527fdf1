// RUN: %sonew-opt --pass lower-storage --pass stochastic-rounding %s | FileCheck %s
// RUN: not %sonew-opt --pass stochastic-rounding %s 2>&1 | FileCheck %s --check-prefix=EARLY
// EARLY: sonew_opt: stochastic-rounding: no result of train_step is rounded to bf16; run lower-storage before

// The step is counted in the state, from zero on.
// CHECK-LABEL: func.func public @init
// CHECK-SAME:    tensor<i32> {sonew.name = "precision/step", sonew.role = "optimizer"}
// CHECK:         %c = stablehlo.constant dense<0> : tensor<i32>
// CHECK-NEXT:    return %0, %c
func.func public @init(%w: tensor<2x3xf32>)
    -> (tensor<2x3xf32> {sonew.name = "params/w", sonew.role = "parameter"}) {
  return %w : tensor<2x3xf32>
}

// CHECK-LABEL: func.func public @train_step
// CHECK-SAME:    %arg2: tensor<i32> {sonew.donate, sonew.name = "precision/step", sonew.role = "optimizer"}
// CHECK-SAME:    tensor<i32> {sonew.name = "precision/step", sonew.role = "optimizer"}
// The moment is rounded to nearest, the weight is not.
// CHECK:         %[[M:.*]] = stablehlo.convert {{.*}} : (tensor<3xf32>) -> tensor<3xbf16>
// CHECK-NOT:     (tensor<2x3xf32>) -> tensor<2x3xbf16>
// CHECK:         stablehlo.bitcast_convert %arg2 : (tensor<i32>) -> tensor<ui32>
// CHECK-COUNT-2: stablehlo.iota {{.*}} : tensor<2x3xui32>
// CHECK:         %[[W:.*]] = stablehlo.bitcast_convert {{.*}} : (tensor<2x3xui16>) -> tensor<2x3xbf16>
// CHECK:         %[[N:.*]] = stablehlo.add %arg2, {{.*}} : tensor<i32>
// CHECK-NEXT:    return %[[W]], %[[M]], %[[N]]
func.func public @train_step(
    %w: tensor<2x3xf32> {sonew.name = "params/w", sonew.role = "parameter"},
    %m: tensor<3xf32> {sonew.name = "optimizer/m", sonew.role = "optimizer"})
    -> (tensor<2x3xf32> {sonew.name = "params/w", sonew.role = "parameter"},
        tensor<3xf32> {sonew.name = "optimizer/m", sonew.role = "optimizer"}) {
  %0 = stablehlo.cosine %w : tensor<2x3xf32>
  %1 = stablehlo.cosine %m : tensor<3xf32>
  return %0, %1 : tensor<2x3xf32>, tensor<3xf32>
}
