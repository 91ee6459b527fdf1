// RUN: %sonew-opt --pass fork-stored %s | FileCheck %s

// What takes an argument's buffer and is read again is read in a copy. So is what is returned in another shape.
// CHECK-LABEL: func.func public @step
// CHECK:         [[M:%.+]] = stablehlo.multiply %arg0, %arg2
// CHECK:         [[READ:%.+]] = stablehlo.add [[M]], {{%.+}} : tensor<4xf32>
// CHECK:         [[H:%.+]] = stablehlo.multiply {{.+}} : tensor<4xbf16>
// CHECK:         [[HALF:%.+]] = stablehlo.add [[H]], {{%.+}} : tensor<4xbf16>
// CHECK:         [[SHAPED:%.+]] = stablehlo.reshape [[H]]
// CHECK:         [[WIDE:%.+]] = stablehlo.convert [[HALF]]
// CHECK:         [[U:%.+]] = stablehlo.divide [[READ]], [[WIDE]]
// CHECK:         return [[M]], [[SHAPED]], [[U]]
func.func public @step(%m: tensor<4xf32> {tf.aliasing_output = 0 : i32}, %h: tensor<2x2xbf16> {tf.aliasing_output = 1 : i32}, %g: tensor<4xf32>) -> (tensor<4xf32>, tensor<2x2xbf16>, tensor<4xf32>) {
  %0 = stablehlo.multiply %m, %g : tensor<4xf32>
  %1 = stablehlo.reshape %h : (tensor<2x2xbf16>) -> tensor<4xbf16>
  %2 = stablehlo.multiply %1, %1 : tensor<4xbf16>
  %3 = stablehlo.reshape %2 : (tensor<4xbf16>) -> tensor<2x2xbf16>
  %4 = stablehlo.convert %2 : (tensor<4xbf16>) -> tensor<4xf32>
  %5 = stablehlo.divide %0, %4 : tensor<4xf32>
  return %0, %3, %5 : tensor<4xf32>, tensor<2x2xbf16>, tensor<4xf32>
}

// Counts, what nothing else reads, what has a buffer of its own, and an argument that is given back stay as they are.
// CHECK-LABEL: func.func public @others
// CHECK-NOT:     stablehlo.constant
// CHECK:         return
func.func public @others(%n: tensor<i32> {tf.aliasing_output = 0 : i32}, %m: tensor<4xf32> {tf.aliasing_output = 1 : i32}, %w: tensor<4xf32>, %k: tensor<4xf32> {tf.aliasing_output = 3 : i32}) -> (tensor<i32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<i32>) {
  %0 = stablehlo.add %n, %n : tensor<i32>
  %1 = stablehlo.add %m, %m : tensor<4xf32>
  %2 = stablehlo.add %w, %w : tensor<4xf32>
  %3 = stablehlo.multiply %2, %k : tensor<4xf32>
  %4 = stablehlo.negate %0 : tensor<i32>
  return %0, %1, %2, %k, %3, %4 : tensor<i32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<i32>
}
