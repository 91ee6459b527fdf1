// RUN: %sonew-opt --pass fence-sums %s | FileCheck %s

// A product that is only transposed is made so. One that is read as it is, too, is copied.
// CHECK-LABEL: func.func public @products
// CHECK:         stablehlo.dot_general %arg1, %arg0, contracting_dims = [0] x [1] : (tensor<3x5xf32>, tensor<4x3xf32>) -> tensor<5x4xf32>
// CHECK:         [[PRODUCT:%.+]] = stablehlo.dot_general %arg0, %arg1
// CHECK:         [[COPY:%.+]] = "flow.tensor.clone"([[PRODUCT]])
// CHECK:         stablehlo.transpose [[COPY]], dims = [1, 0]
func.func public @products(%a: tensor<4x3xf32>, %b: tensor<3x5xf32>) -> (tensor<5x4xf32>, tensor<5x4xf32>, tensor<4x5xf32>) {
  %0 = stablehlo.dot_general %a, %b, contracting_dims = [1] x [0] : (tensor<4x3xf32>, tensor<3x5xf32>) -> tensor<4x5xf32>
  %1 = stablehlo.transpose %0, dims = [1, 0] : (tensor<4x5xf32>) -> tensor<5x4xf32>
  %2 = stablehlo.dot_general %a, %b, contracting_dims = [1] x [0] : (tensor<4x3xf32>, tensor<3x5xf32>) -> tensor<4x5xf32>
  %3 = stablehlo.transpose %2, dims = [1, 0] : (tensor<4x5xf32>) -> tensor<5x4xf32>
  return %1, %3, %2 : tensor<5x4xf32>, tensor<5x4xf32>, tensor<4x5xf32>
}

// The sum reaches the transposition through other operations; a broadcast can transpose as well.
// CHECK-LABEL: func.func public @sums
// CHECK:         [[TANH:%.+]] = stablehlo.tanh
// CHECK:         [[ONE:%.+]] = "flow.tensor.clone"([[TANH]])
// CHECK:         stablehlo.transpose [[ONE]], dims = [1, 0]
// CHECK:         [[SUM:%.+]] = stablehlo.reduce
// CHECK:         [[TWO:%.+]] = "flow.tensor.clone"([[SUM]])
// CHECK:         stablehlo.broadcast_in_dim [[TWO]], dims = [1, 0]
func.func public @sums(%x: tensor<4x3x2xf32>) -> (tensor<3x4xf32>, tensor<3x4xf32>) {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [2] : (tensor<4x3x2xf32>, tensor<f32>) -> tensor<4x3xf32>
  %1 = stablehlo.tanh %0 : tensor<4x3xf32>
  %2 = stablehlo.transpose %1, dims = [1, 0] : (tensor<4x3xf32>) -> tensor<3x4xf32>
  %3 = stablehlo.reduce(%x init: %zero) applies stablehlo.maximum across dimensions = [2] : (tensor<4x3x2xf32>, tensor<f32>) -> tensor<4x3xf32>
  %4 = stablehlo.broadcast_in_dim %3, dims = [1, 0] : (tensor<4x3xf32>) -> tensor<3x4xf32>
  return %2, %4 : tensor<3x4xf32>, tensor<3x4xf32>
}

// The mean of a batch is read at every example, that of an example by its own thread.
// CHECK-LABEL: func.func public @means
// CHECK:         [[BATCH:%.+]] = stablehlo.reduce
// CHECK:         [[COPY:%.+]] = "flow.tensor.clone"([[BATCH]])
// CHECK:         stablehlo.broadcast_in_dim [[COPY]], dims = [1]
// CHECK:         [[EXAMPLE:%.+]] = stablehlo.reduce
// CHECK-NEXT:    stablehlo.broadcast_in_dim [[EXAMPLE]], dims = [0]
func.func public @means(%x: tensor<4x3xf32>) -> (tensor<4x3xf32>, tensor<4x3xf32>) {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %1 = stablehlo.broadcast_in_dim %0, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %2 = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [1] : (tensor<4x3xf32>, tensor<f32>) -> tensor<4xf32>
  %3 = stablehlo.broadcast_in_dim %2, dims = [0] : (tensor<4xf32>) -> tensor<4x3xf32>
  return %1, %3 : tensor<4x3xf32>, tensor<4x3xf32>
}

// No sum comes before the first, and an axis of one element goes nowhere.
// CHECK-LABEL: func.func public @others
// CHECK-NOT:     flow.tensor.clone
func.func public @others(%x: tensor<4x3xf32>) -> (tensor<3x4xf32>, tensor<1x4xf32>) {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = stablehlo.exponential %x : tensor<4x3xf32>
  %1 = stablehlo.transpose %0, dims = [1, 0] : (tensor<4x3xf32>) -> tensor<3x4xf32>
  %2 = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [1] : (tensor<4x3xf32>, tensor<f32>) -> tensor<4xf32>
  %3 = stablehlo.reshape %2 : (tensor<4xf32>) -> tensor<4x1xf32>
  %4 = stablehlo.transpose %3, dims = [1, 0] : (tensor<4x1xf32>) -> tensor<1x4xf32>
  return %1, %4 : tensor<3x4xf32>, tensor<1x4xf32>
}
