// The roles of the state stay; those of the batch, the learning rate and the loss go. Names and donation stay.
// RUN: %sonew-opt --pass strip-roles %s | FileCheck %s

// CHECK:      func.func public @train_step(
// CHECK-SAME:   tensor<2xf32> {sonew.donate, sonew.name = "params/w", sonew.role = "parameter"}
// CHECK-SAME:   tensor<i32> {sonew.name = "optimizer/count", sonew.role = "optimizer"}
// CHECK-SAME:   tensor<4x2xf32> {sonew.name = "batch/x"}
// CHECK-SAME:   tensor<f32> {sonew.name = "learning_rate"}
// CHECK-SAME:   -> (tensor<2xf32> {sonew.name = "params/w", sonew.role = "parameter"},
// CHECK-SAME:   tensor<i32> {sonew.name = "optimizer/count", sonew.role = "optimizer"},
// CHECK-SAME:   tensor<f32> {sonew.name = "loss"})
func.func public @train_step(
    %w: tensor<2xf32> {sonew.donate, sonew.name = "params/w", sonew.role = "parameter"},
    %n: tensor<i32> {sonew.name = "optimizer/count", sonew.role = "optimizer"},
    %x: tensor<4x2xf32> {sonew.name = "batch/x", sonew.role = "batch"},
    %rate: tensor<f32> {sonew.name = "learning_rate", sonew.role = "learning_rate"})
    -> (tensor<2xf32> {sonew.name = "params/w", sonew.role = "parameter"},
        tensor<i32> {sonew.name = "optimizer/count", sonew.role = "optimizer"},
        tensor<f32> {sonew.name = "loss", sonew.role = "loss"}) {
  return %w, %n, %rate : tensor<2xf32>, tensor<i32>, tensor<f32>
}
