// RUN: %sonew-opt --pass stream-rows:lanes=8 %s | FileCheck %s

// What a model pads with is not left out of a sum.
// CHECK-LABEL: func.func public @padded_sum
// CHECK:         [[MADE:%.+]] = "flow.dispatch"(%arg0)
// CHECK:         [[PADDED:%.+]] = stablehlo.pad [[MADE]], {{%.+}}, low = [1, 1]
// CHECK:         stablehlo.reduce([[PADDED]] init: {{%.+}}) applies stablehlo.add
func.func public @padded_sum(%x: tensor<64x32xf32>) -> tensor<f32> {
  %z = stablehlo.constant dense<0.0> : tensor<f32>
  %one = stablehlo.constant dense<1.0> : tensor<f32>
  %e = stablehlo.constant dense<0.0> : tensor<1x32xf32>
  %s = stablehlo.slice %x [1:64, 0:32] : (tensor<64x32xf32>) -> tensor<63x32xf32>
  %c = stablehlo.concatenate %s, %e, dim = 0 : (tensor<63x32xf32>, tensor<1x32xf32>) -> tensor<64x32xf32>
  %y = stablehlo.add %x, %c : tensor<64x32xf32>
  %p = stablehlo.pad %y, %one, low = [1, 1], high = [1, 1], interior = [0, 0] : (tensor<64x32xf32>, tensor<f32>) -> tensor<66x34xf32>
  %r = stablehlo.reduce(%p init: %z) applies stablehlo.add across dimensions = [0, 1] : (tensor<66x34xf32>, tensor<f32>) -> tensor<f32>
  return %r : tensor<f32>
}

// Nor out of the largest of an activation.
// CHECK-LABEL: func.func public @padded_maximum
// CHECK:         [[MADE:%.+]] = "flow.dispatch"
// CHECK:         [[PADDED:%.+]] = stablehlo.pad [[MADE]], {{%.+}}, low = [0, 0], high = [1, 0]
// CHECK:         stablehlo.reduce([[PADDED]] init: {{%.+}}) applies stablehlo.maximum
func.func public @padded_maximum(%x: tensor<128x64xf32>, %w: tensor<64x128xf32>, %b: tensor<128xf32>) -> tensor<f32> {
  %inf = stablehlo.constant dense<0xFF800000> : tensor<f32>
  %z = stablehlo.constant dense<0.0> : tensor<f32>
  %d = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<128x64xf32>, tensor<64x128xf32>) -> tensor<128x128xf32>
  %bb = stablehlo.broadcast_in_dim %b, dims = [1] : (tensor<128xf32>) -> tensor<128x128xf32>
  %a = stablehlo.add %d, %bb : tensor<128x128xf32>
  %y = stablehlo.tanh %a : tensor<128x128xf32>
  %p = stablehlo.pad %y, %z, low = [0, 0], high = [1, 0], interior = [0, 0] : (tensor<128x128xf32>, tensor<f32>) -> tensor<129x128xf32>
  %r = stablehlo.reduce(%p init: %inf) applies stablehlo.maximum across dimensions = [0, 1] : (tensor<129x128xf32>, tensor<f32>) -> tensor<f32>
  return %r : tensor<f32>
}

// Integers are clamped by IREE.
// CHECK-LABEL: func.func public @clamped
// CHECK:         stablehlo.clamp {{.*}} : (tensor<i32>, tensor<64x32xi32>, tensor<i32>) -> tensor<64x32xi32>
func.func public @clamped(%x: tensor<64x32xi32>) -> tensor<64x32xi32> {
  %lo = stablehlo.constant dense<0> : tensor<i32>
  %hi = stablehlo.constant dense<9> : tensor<i32>
  %e = stablehlo.constant dense<0> : tensor<1x32xi32>
  %s = stablehlo.slice %x [1:64, 0:32] : (tensor<64x32xi32>) -> tensor<63x32xi32>
  %c = stablehlo.concatenate %s, %e, dim = 0 : (tensor<63x32xi32>, tensor<1x32xi32>) -> tensor<64x32xi32>
  %y = stablehlo.clamp %lo, %c, %hi : (tensor<i32>, tensor<64x32xi32>, tensor<i32>) -> tensor<64x32xi32>
  return %y : tensor<64x32xi32>
}
