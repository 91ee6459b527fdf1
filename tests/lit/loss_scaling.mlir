// RUN: %sonew-opt --pass loss-scaling:initial=1024,interval=7 %s | FileCheck %s
// RUN: not %sonew-opt --pass loss-scaling:initial=1000 %s 2>&1 | FileCheck %s --check-prefix=INITIAL
// INITIAL: sonew_opt: loss-scaling: the initial scale is 1000; give a power of two up to 16777216
// RUN: echo 'module {}' | not %sonew-opt --pass loss-scaling - 2>&1 | FileCheck %s --check-prefix=EMPTY
// EMPTY: sonew_opt: loss-scaling needs the functions init and train_step

// CHECK-LABEL: func.func public @init
// CHECK-DAG:     stablehlo.constant dense<1.024000e+03> : tensor<f32>
// CHECK-DAG:     stablehlo.constant dense<0> : tensor<i32>
func.func public @init(%w: tensor<4xf32>) -> (tensor<4xf32> {sonew.name = "params/w", sonew.role = "parameter"}) {
  return %w : tensor<4xf32>
}

// CHECK-LABEL: func.func public @train_step
// CHECK-SAME:    %arg1: tensor<f32> {sonew.donate, sonew.name = "precision/loss_scale", sonew.role = "optimizer"}
// CHECK-SAME:    %arg2: tensor<i32> {sonew.donate, sonew.name = "precision/good_steps", sonew.role = "optimizer"}
// The scale is the cotangent,
// CHECK:         %[[G:.*]]:2 = call @train_step__gradients(%arg0, %arg1)
// the gradient is looked at as it comes, and divided before the update,
// CHECK-NEXT:    %[[ZERO:.*]] = stablehlo.constant dense<0> : tensor<ui32>
// CHECK-NEXT:    %[[BITS:.*]] = stablehlo.bitcast_convert %[[G]]#1 : (tensor<4xf32>) -> tensor<4xui32>
// CHECK:         stablehlo.reduce({{.*}} init: %[[ZERO]]) applies stablehlo.maximum across dimensions = [0]
// CHECK:         %[[OK:.*]] = stablehlo.compare LT, {{.*}}, UNSIGNED : (tensor<ui32>, tensor<ui32>) -> tensor<i1>
// CHECK:         %[[INVERSE:.*]] = stablehlo.divide {{.*}}, %arg1 : tensor<f32>
// CHECK:         %[[FACTOR:.*]] = stablehlo.broadcast_in_dim %[[INVERSE]], dims = []
// CHECK:         %[[UNSCALED:.*]] = stablehlo.multiply %[[G]]#1, %[[FACTOR]] : tensor<4xf32>
// CHECK:         %[[NEW:.*]] = call @train_step__update(%[[UNSCALED]], %arg0)
// and the state stays if it was not finite.
// CHECK-NEXT:    %[[W:.*]] = stablehlo.select %[[OK]], %[[NEW]], %arg0 : tensor<i1>, tensor<4xf32>
// CHECK:         stablehlo.constant dense<7> : tensor<i32>
// CHECK:         return %[[W]], %[[G]]#0, {{.*}} : tensor<4xf32>, tensor<f32>, tensor<f32>, tensor<i32>
func.func public @train_step(%w: tensor<4xf32> {sonew.name = "params/w", sonew.role = "parameter"})
    -> (tensor<4xf32> {sonew.name = "params/w", sonew.role = "parameter"}, tensor<f32> {sonew.name = "loss"}) {
  %one = stablehlo.constant dense<1.0> : tensor<f32>
  %0:2 = func.call @train_step__gradients(%w, %one) : (tensor<4xf32>, tensor<f32>) -> (tensor<f32>, tensor<4xf32>)
  %1 = func.call @train_step__update(%0#1, %w) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return %1, %0#0 : tensor<4xf32>, tensor<f32>
}
func.func private @train_step__gradients(%w: tensor<4xf32>, %cotangent: tensor<f32>) -> (tensor<f32>, tensor<4xf32>) {
  %0 = stablehlo.broadcast_in_dim %cotangent, dims = [] : (tensor<f32>) -> tensor<4xf32>
  %loss = stablehlo.constant dense<0.0> : tensor<f32>
  return %loss, %0 : tensor<f32>, tensor<4xf32>
}
func.func private @train_step__update(%g: tensor<4xf32>, %w: tensor<4xf32>) -> tensor<4xf32> {
  %0 = stablehlo.subtract %w, %g : tensor<4xf32>
  return %0 : tensor<4xf32>
}
