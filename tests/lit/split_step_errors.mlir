// RUN: not %sonew-opt --pass split-step %s 2>&1 | FileCheck %s
// CHECK: sonew_opt: split-step: the update reads the batch itself; only the gradients may

func.func public @train_step(
    %w: tensor<3xf32> {sonew.name = "params/w", sonew.role = "parameter"},
    %x: tensor<3xf32> {sonew.name = "batch/x", sonew.role = "batch"})
    -> (tensor<3xf32> {sonew.name = "params/w", sonew.role = "parameter"}) {
  %0:2 = call @train_step__gradients(%w) : (tensor<3xf32>) -> (tensor<f32>, tensor<3xf32>)
  %1 = stablehlo.add %0#1, %x : tensor<3xf32>
  return %1 : tensor<3xf32>
}
func.func private @train_step__gradients(%w: tensor<3xf32>) -> (tensor<f32>, tensor<3xf32>) {
  %0 = stablehlo.constant dense<0.0> : tensor<f32>
  return %0, %w : tensor<f32>, tensor<3xf32>
}
