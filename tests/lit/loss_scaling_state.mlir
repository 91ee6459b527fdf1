// What a skipped step undoes: parameters and the state of the model, and not the number of steps that keys are made of.
// RUN: %sonew-opt --pass loss-scaling %s | FileCheck %s

func.func public @init() -> (tensor<4xf32> {sonew.name = "params/w", sonew.role = "parameter"},
    tensor<i32> {sonew.name = "random/step", sonew.role = "random"},
    tensor<f32> {sonew.name = "state/mean", sonew.role = "model_state"}) {
  %w = stablehlo.constant dense<0.0> : tensor<4xf32>
  %step = stablehlo.constant dense<0> : tensor<i32>
  %mean = stablehlo.constant dense<0.0> : tensor<f32>
  return %w, %step, %mean : tensor<4xf32>, tensor<i32>, tensor<f32>
}

// CHECK-LABEL: func.func public @train_step
// CHECK:         %[[G:.*]]:3 = call @train_step__gradients
// CHECK:         %[[OK:.*]] = stablehlo.compare LT, {{.*}}, UNSIGNED
// The state of the model does not depend on the cotangent, and is not divided by the scale.
// CHECK-NOT:     stablehlo.multiply %[[G]]#2
// CHECK:         %[[NEW:.*]] = call @train_step__update
// CHECK:         %[[STEP:.*]] = stablehlo.add %arg1, {{.*}} : tensor<i32>
// CHECK:         %[[W:.*]] = stablehlo.select %[[OK]], %[[NEW]], %arg0
// CHECK-NEXT:    %[[MEAN:.*]] = stablehlo.select %[[OK]], %[[G]]#2, %arg2
// CHECK:         return %[[W]], %[[STEP]], %[[MEAN]], %[[G]]#0,
func.func public @train_step(%w: tensor<4xf32> {sonew.name = "params/w", sonew.role = "parameter"},
    %step: tensor<i32> {sonew.name = "random/step", sonew.role = "random"},
    %mean: tensor<f32> {sonew.name = "state/mean", sonew.role = "model_state"})
    -> (tensor<4xf32> {sonew.name = "params/w", sonew.role = "parameter"},
    tensor<i32> {sonew.name = "random/step", sonew.role = "random"},
    tensor<f32> {sonew.name = "state/mean", sonew.role = "model_state"}, tensor<f32> {sonew.name = "loss"}) {
  %one = stablehlo.constant dense<1.0> : tensor<f32>
  %0:3 = func.call @train_step__gradients(%w, %mean, %one)
      : (tensor<4xf32>, tensor<f32>, tensor<f32>) -> (tensor<f32>, tensor<4xf32>, tensor<f32>)
  %1 = func.call @train_step__update(%0#1, %w) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %more = stablehlo.constant dense<1> : tensor<i32>
  %next = stablehlo.add %step, %more : tensor<i32>
  return %1, %next, %0#2, %0#0 : tensor<4xf32>, tensor<i32>, tensor<f32>, tensor<f32>
}
func.func private @train_step__gradients(%w: tensor<4xf32>, %mean: tensor<f32>, %cotangent: tensor<f32>)
    -> (tensor<f32>, tensor<4xf32>, tensor<f32>) {
  %0 = stablehlo.broadcast_in_dim %cotangent, dims = [] : (tensor<f32>) -> tensor<4xf32>
  %loss = stablehlo.constant dense<0.0> : tensor<f32>
  %half = stablehlo.multiply %mean, %mean : tensor<f32>
  return %loss, %0, %half : tensor<f32>, tensor<4xf32>, tensor<f32>
}
func.func private @train_step__update(%g: tensor<4xf32>, %w: tensor<4xf32>) -> tensor<4xf32> {
  %0 = stablehlo.subtract %w, %g : tensor<4xf32>
  return %0 : tensor<4xf32>
}
