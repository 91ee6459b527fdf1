// RUN: %sonew-opt --pass split-update %s | FileCheck %s
// RUN: not %sonew-opt --pass split-update %S/split_step_errors.mlir 2>&1 | FileCheck %s --check-prefix=NONE
// NONE: sonew_opt: split-update needs a function update; run split-step before

// One matrix for two parameters: there is nothing to divide.
// CHECK-NOT: @update_
// CHECK:     func.func public @update(
// CHECK-NOT: @update_
func.func public @update(
    %bucket: tensor<41xf32> {sonew.name = "bucket", sonew.role = "gradient"},
    %v: tensor<20xf32> {sonew.name = "params/v", sonew.role = "parameter"},
    %w: tensor<20xf32> {sonew.name = "params/w", sonew.role = "parameter"},
    %m: tensor<40xf32> {sonew.name = "optimizer/m", sonew.role = "optimizer"})
    -> (tensor<20xf32> {sonew.name = "params/v", sonew.role = "parameter"},
        tensor<20xf32> {sonew.name = "params/w", sonew.role = "parameter"},
        tensor<40xf32> {sonew.name = "optimizer/m", sonew.role = "optimizer"},
        tensor<f32> {sonew.name = "loss", sonew.role = "loss"}) {
  %first = stablehlo.slice %bucket [0:1] : (tensor<41xf32>) -> tensor<1xf32>
  %loss = stablehlo.reshape %first : (tensor<1xf32>) -> tensor<f32>
  %g = stablehlo.slice %bucket [1:41] : (tensor<41xf32>) -> tensor<40xf32>
  %m1 = stablehlo.add %m, %g : tensor<40xf32>
  %uv = stablehlo.slice %m1 [0:20] : (tensor<40xf32>) -> tensor<20xf32>
  %uw = stablehlo.slice %m1 [20:40] : (tensor<40xf32>) -> tensor<20xf32>
  %v1 = stablehlo.subtract %v, %uv : tensor<20xf32>
  %w1 = stablehlo.subtract %w, %uw : tensor<20xf32>
  return %v1, %w1, %m1, %loss : tensor<20xf32>, tensor<20xf32>, tensor<40xf32>, tensor<f32>
}
