// RUN: %sonew-opt --pass loss-scaling %s | FileCheck %s

func.func public @init(%w: tensor<4xf32>) -> (tensor<4xf32> {sonew.name = "params/w", sonew.role = "parameter"}) {
  return %w : tensor<4xf32>
}

// What a call and a loop make of the cotangent is divided; what passes by them, here an activation, is not.
// CHECK-LABEL: func.func public @train_step
// CHECK:         %[[G:.*]]:4 = call @train_step__gradients(%arg0, %arg1)
// CHECK-COUNT-2: stablehlo.bitcast_convert
// CHECK-NOT:     stablehlo.bitcast_convert
// CHECK-DAG:     %[[CALLED:.*]] = stablehlo.multiply %[[G]]#1, {{.*}} : tensor<4xf32>
// CHECK-DAG:     %[[LOOPED:.*]] = stablehlo.multiply %[[G]]#3, {{.*}} : tensor<4xf32>
// CHECK:         call @train_step__update(%[[CALLED]], %[[G]]#2, %[[LOOPED]], %arg0)
func.func public @train_step(%w: tensor<4xf32> {sonew.name = "params/w", sonew.role = "parameter"})
    -> (tensor<4xf32> {sonew.name = "params/w", sonew.role = "parameter"}, tensor<f32> {sonew.name = "loss"}) {
  %one = stablehlo.constant dense<1.0> : tensor<f32>
  %0:4 = func.call @train_step__gradients(%w, %one)
      : (tensor<4xf32>, tensor<f32>) -> (tensor<f32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>)
  %1 = func.call @train_step__update(%0#1, %0#2, %0#3, %w)
      : (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return %1, %0#0 : tensor<4xf32>, tensor<f32>
}
func.func private @train_step__gradients(%w: tensor<4xf32>, %cotangent: tensor<f32>)
    -> (tensor<f32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) {
  %loss = stablehlo.constant dense<0.0> : tensor<f32>
  %0:2 = func.call @train_step__both(%w, %cotangent) : (tensor<4xf32>, tensor<f32>) -> (tensor<4xf32>, tensor<4xf32>)
  %zero = stablehlo.constant dense<0> : tensor<i32>
  %two = stablehlo.constant dense<2> : tensor<i32>
  %1:2 = stablehlo.while(%i = %zero, %x = %w) : tensor<i32>, tensor<4xf32>
    cond {
      %2 = stablehlo.compare LT, %i, %two : (tensor<i32>, tensor<i32>) -> tensor<i1>
      stablehlo.return %2 : tensor<i1>
    } do {
      %2 = stablehlo.add %i, %two : tensor<i32>
      %3 = stablehlo.broadcast_in_dim %cotangent, dims = [] : (tensor<f32>) -> tensor<4xf32>
      stablehlo.return %2, %3 : tensor<i32>, tensor<4xf32>
    }
  return %loss, %0#0, %0#1, %1#1 : tensor<f32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>
}
func.func private @train_step__both(%w: tensor<4xf32>, %cotangent: tensor<f32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %0 = stablehlo.broadcast_in_dim %cotangent, dims = [] : (tensor<f32>) -> tensor<4xf32>
  %1 = stablehlo.tanh %w : tensor<4xf32>
  return %0, %1 : tensor<4xf32>, tensor<4xf32>
}
func.func private @train_step__update(%g: tensor<4xf32>, %a: tensor<4xf32>, %h: tensor<4xf32>, %w: tensor<4xf32>)
    -> tensor<4xf32> {
  %0 = stablehlo.subtract %w, %g : tensor<4xf32>
  %1 = stablehlo.multiply %0, %a : tensor<4xf32>
  %2 = stablehlo.subtract %1, %h : tensor<4xf32>
  return %2 : tensor<4xf32>
}
