// RUN: %sonew-opt --pass negate-sums %s | FileCheck %s

// A gradient that is subtracted everywhere: its sum is subtracted from zero. The reshape stays in between.
// CHECK-LABEL: func.func public @floats
// CHECK:         [[MOVED:%.+]] = stablehlo.reshape %arg0 : (tensor<4x8x2xf32>) -> tensor<32x2xf32>
// CHECK:         [[SUM:%.+]] = stablehlo.reduce([[MOVED]] init: %{{.+}}) applies stablehlo.add across dimensions = [0]
// CHECK:         [[RESULT:%.+]] = stablehlo.subtract %{{.+}}, [[SUM]] : tensor<2xf32>
// CHECK:         return [[RESULT]]
func.func public @floats(%x: tensor<4x8x2xf32>) -> tensor<2xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = stablehlo.negate %x : tensor<4x8x2xf32>
  %1 = stablehlo.reshape %0 : (tensor<4x8x2xf32>) -> tensor<32x2xf32>
  %2 = stablehlo.reduce(%1 init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<32x2xf32>, tensor<f32>) -> tensor<2xf32>
  return %2 : tensor<2xf32>
}

// CHECK-LABEL: func.func public @integers
// CHECK:         [[SUM:%.+]] = stablehlo.reduce(%arg0 init: %{{.+}}) applies stablehlo.add across dimensions = [0]
// CHECK:         stablehlo.subtract %{{.+}}, [[SUM]] : tensor<8xi32>
func.func public @integers(%x: tensor<4x8xi32>) -> tensor<8xi32> {
  %zero = stablehlo.constant dense<0> : tensor<i32>
  %minus = stablehlo.constant dense<-1> : tensor<i32>
  %all = stablehlo.broadcast_in_dim %minus, dims = [] : (tensor<i32>) -> tensor<4x8xi32>
  %0 = stablehlo.multiply %all, %x : tensor<4x8xi32>
  %1 = stablehlo.reduce(%0 init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<4x8xi32>, tensor<i32>) -> tensor<8xi32>
  return %1 : tensor<8xi32>
}

// The largest of negated numbers is another one's, and a sum from -0 can be -0.
// CHECK-LABEL: func.func public @others
// CHECK-COUNT-2: stablehlo.reduce(%0 init:
// CHECK-NOT:     stablehlo.subtract
func.func public @others(%x: tensor<4x8xf32>) -> (tensor<8xf32>, tensor<8xf32>) {
  %zero = stablehlo.constant dense<-0.0> : tensor<f32>
  %0 = stablehlo.negate %x : tensor<4x8xf32>
  %1 = stablehlo.reduce(%0 init: %zero) applies stablehlo.maximum across dimensions = [0] : (tensor<4x8xf32>, tensor<f32>) -> tensor<8xf32>
  %2 = stablehlo.reduce(%0 init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<4x8xf32>, tensor<f32>) -> tensor<8xf32>
  return %1, %2 : tensor<8xf32>, tensor<8xf32>
}
