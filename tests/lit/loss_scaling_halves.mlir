// RUN: %sonew-opt --pass loss-scaling %s | FileCheck %s

// A parameter of 16 bits: its gradient is divided by the scale in float32, and looked at.
// CHECK-LABEL: func.func public @train_step
// CHECK:         [[CALL:%.+]]:2 = call @train_step__gradients(%arg0, %arg1, %arg2)
// CHECK:         [[WIDE:%.+]] = stablehlo.convert [[CALL]]#1 : (tensor<4xbf16>) -> tensor<4xf32>
// CHECK:         stablehlo.bitcast_convert [[WIDE]] : (tensor<4xf32>) -> tensor<4xui32>
// CHECK:         [[UNSCALED:%.+]] = stablehlo.multiply [[WIDE]], {{%.+}} : tensor<4xf32>
// CHECK:         [[NARROW:%.+]] = stablehlo.convert [[UNSCALED]] : (tensor<4xf32>) -> tensor<4xbf16>
// CHECK:         stablehlo.subtract %arg0, [[NARROW]] : tensor<4xbf16>
func.func public @init() -> (tensor<4xbf16> {sonew.name = "params/w", sonew.role = "parameter"}) {
  %c = stablehlo.constant dense<1.0> : tensor<4xbf16>
  return %c : tensor<4xbf16>
}
func.func public @train_step(%w: tensor<4xbf16> {sonew.name = "params/w", sonew.role = "parameter", sonew.donate}, %x: tensor<4xf32> {sonew.name = "batch/x", sonew.role = "batch"}) -> (tensor<4xbf16> {sonew.name = "params/w", sonew.role = "parameter"}, tensor<f32> {sonew.name = "loss", sonew.role = "loss"}) {
  %one = stablehlo.constant dense<1.0> : tensor<f32>
  %l, %g = func.call @train_step__gradients(%w, %x, %one) : (tensor<4xbf16>, tensor<4xf32>, tensor<f32>) -> (tensor<f32>, tensor<4xbf16>)
  %n = stablehlo.subtract %w, %g : tensor<4xbf16>
  return %n, %l : tensor<4xbf16>, tensor<f32>
}
func.func private @train_step__gradients(%w: tensor<4xbf16>, %x: tensor<4xf32>, %ct: tensor<f32>) -> (tensor<f32>, tensor<4xbf16>) {
  %z = stablehlo.constant dense<0.0> : tensor<f32>
  %f = stablehlo.convert %w : (tensor<4xbf16>) -> tensor<4xf32>
  %m = stablehlo.multiply %f, %x : tensor<4xf32>
  %l = stablehlo.reduce(%m init: %z) applies stablehlo.add across dimensions = [0] : (tensor<4xf32>, tensor<f32>) -> tensor<f32>
  %b = stablehlo.broadcast_in_dim %ct, dims = [] : (tensor<f32>) -> tensor<4xf32>
  %gx = stablehlo.multiply %b, %x : tensor<4xf32>
  %g = stablehlo.convert %gx : (tensor<4xf32>) -> tensor<4xbf16>
  return %l, %g : tensor<f32>, tensor<4xbf16>
}
