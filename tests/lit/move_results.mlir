// RUN: %sonew-opt --pass move-results %s | FileCheck %s

// What is widened, stored numbers and rounded ones alike, and what is added are changed in their last places, in functions
// that are called too. Rounding to 16 bits is no rounding to float32.
// CHECK:      func.func public @main(%arg0: tensor<4xbf16>, %arg1: tensor<4xf32>, %arg2: tensor<i32>)
// CHECK-NEXT:   [[WIDE:%.+]] = stablehlo.convert %arg0 : (tensor<4xbf16>) -> tensor<4xf32>
// CHECK:        stablehlo.bitcast_convert %arg2 : (tensor<i32>) -> tensor<ui32>
// CHECK:        [[MOVED:%.+]] = stablehlo.multiply [[WIDE]], {{%.+}} : tensor<4xf32>
// CHECK-NEXT:   [[SUM:%.+]] = stablehlo.add [[MOVED]], %arg1 : tensor<4xf32>
// CHECK:        [[OTHER:%.+]] = stablehlo.multiply [[SUM]], {{%.+}} : tensor<4xf32>
// CHECK-NEXT:   [[NARROW:%.+]] = stablehlo.convert [[OTHER]] : (tensor<4xf32>) -> tensor<4xbf16>
// CHECK-NEXT:   [[AGAIN:%.+]] = stablehlo.convert [[NARROW]] : (tensor<4xbf16>) -> tensor<4xf32>
// CHECK:        stablehlo.bitcast_convert %arg2 : (tensor<i32>) -> tensor<ui32>
// CHECK:        [[LAST:%.+]] = stablehlo.multiply [[AGAIN]], {{%.+}} : tensor<4xf32>
// CHECK-NEXT:   return [[LAST]]
func.func public @main(%w: tensor<4xbf16>, %x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = stablehlo.convert %w : (tensor<4xbf16>) -> tensor<4xf32>
  %1 = stablehlo.add %0, %x : tensor<4xf32>
  %2 = func.call @rounded(%1) : (tensor<4xf32>) -> tensor<4xf32>
  return %2 : tensor<4xf32>
}
func.func private @rounded(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = stablehlo.convert %x : (tensor<4xf32>) -> tensor<4xbf16>
  %1 = stablehlo.convert %0 : (tensor<4xbf16>) -> tensor<4xf32>
  return %1 : tensor<4xf32>
}

// So is what float32 sums of products of 16 bits; a product that is rounded is not, nor what a region of elements widens.
// CHECK-LABEL: func.func public @products
// CHECK:         [[SUM:%.+]] = stablehlo.dot_general {{.*}} -> tensor<3x3xf32>
// CHECK:         [[MOVED:%.+]] = stablehlo.multiply [[SUM]], {{%.+}} : tensor<3x3xf32>
// CHECK:         [[ROUNDED:%.+]] = stablehlo.dot_general {{.*}} -> tensor<3x3xbf16>
// CHECK-NOT:     stablehlo.multiply
// CHECK:         return [[MOVED]], [[ROUNDED]]
func.func public @products(%a: tensor<3x2xbf16>, %b: tensor<2x3xbf16>, %c: tensor<3xbf16>)
    -> (tensor<3x3xf32>, tensor<3x3xbf16>, tensor<bf16>) {
  %0 = stablehlo.dot_general %a, %b, contracting_dims = [1] x [0] : (tensor<3x2xbf16>, tensor<2x3xbf16>) -> tensor<3x3xf32>
  %1 = stablehlo.dot_general %a, %b, contracting_dims = [1] x [0] : (tensor<3x2xbf16>, tensor<2x3xbf16>) -> tensor<3x3xbf16>
  %zero = stablehlo.constant dense<0.0> : tensor<bf16>
  %2 = "stablehlo.reduce"(%c, %zero) ({
  ^bb0(%x: tensor<bf16>, %y: tensor<bf16>):
    %wide = stablehlo.convert %x : (tensor<bf16>) -> tensor<f32>
    %other = stablehlo.convert %y : (tensor<bf16>) -> tensor<f32>
    %sum = stablehlo.add %wide, %other : tensor<f32>
    %narrow = stablehlo.convert %sum : (tensor<f32>) -> tensor<bf16>
    stablehlo.return %narrow : tensor<bf16>
  }) {dimensions = array<i64: 0>} : (tensor<3xbf16>, tensor<bf16>) -> tensor<bf16>
  return %0, %1, %2 : tensor<3x3xf32>, tensor<3x3xbf16>, tensor<bf16>
}

// A sum is rounded. The largest number stays one of the operand's, which a later comparison finds.
// CHECK-LABEL: func.func public @reductions
// CHECK:         [[LARGEST:%.+]] = stablehlo.reduce({{.*}}) applies stablehlo.maximum
// CHECK-NEXT:    [[SUM:%.+]] = stablehlo.reduce({{.*}}) applies stablehlo.add
// CHECK:         [[MOVED:%.+]] = stablehlo.multiply [[SUM]], {{%.+}} : tensor<f32>
// CHECK-NEXT:    return [[LARGEST]], [[MOVED]]
func.func public @reductions(%x: tensor<4xf32>) -> (tensor<f32>, tensor<f32>) {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = stablehlo.reduce(%x init: %zero) applies stablehlo.maximum across dimensions = [0] : (tensor<4xf32>, tensor<f32>) -> tensor<f32>
  %1 = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<4xf32>, tensor<f32>) -> tensor<f32>
  return %0, %1 : tensor<f32>, tensor<f32>
}
