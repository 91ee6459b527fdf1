// RUN: %sonew-opt --pass join-products:alike=2 %s | FileCheck %s
// RUN: %sonew-opt --pass join-products %s | FileCheck --check-prefix=FEW %s

// The products of all rows with the same weights.
// CHECK-LABEL: func.func public @rows
// CHECK:         [[P:%.+]] = stablehlo.dot_general %arg0, %arg1, contracting_dims = [2] x [0] : (tensor<2x3x4xf32>, tensor<4x5xf32>) -> tensor<2x3x5xf32>
// CHECK:         stablehlo.slice [[P]] [0:1, 0:3, 0:5]
// CHECK:         stablehlo.slice [[P]] [1:2, 0:3, 0:5]
// CHECK-NOT:     stablehlo.dot_general
// CHECK:         return
// FEW-LABEL:   func.func public @rows
// FEW-COUNT-2:   stablehlo.dot_general
func.func public @rows(%xs: tensor<2x3x4xf32>, %w: tensor<4x5xf32>) -> (tensor<3x5xf32>, tensor<3x5xf32>) {
  %i0 = stablehlo.constant dense<0> : tensor<i32>
  %i1 = stablehlo.constant dense<1> : tensor<i32>
  %0 = stablehlo.dynamic_slice %xs, %i0, %i0, %i0, sizes = [1, 3, 4] : (tensor<2x3x4xf32>, tensor<i32>, tensor<i32>, tensor<i32>) -> tensor<1x3x4xf32>
  %1 = stablehlo.reshape %0 : (tensor<1x3x4xf32>) -> tensor<3x4xf32>
  %2 = stablehlo.dot_general %1, %w, contracting_dims = [1] x [0] : (tensor<3x4xf32>, tensor<4x5xf32>) -> tensor<3x5xf32>
  %3 = stablehlo.dynamic_slice %xs, %i1, %i0, %i0, sizes = [1, 3, 4] : (tensor<2x3x4xf32>, tensor<i32>, tensor<i32>, tensor<i32>) -> tensor<1x3x4xf32>
  %4 = stablehlo.reshape %3 : (tensor<1x3x4xf32>) -> tensor<3x4xf32>
  %5 = stablehlo.dot_general %4, %w, contracting_dims = [1] x [0] : (tensor<3x4xf32>, tensor<4x5xf32>) -> tensor<3x5xf32>
  return %2, %5 : tensor<3x5xf32>, tensor<3x5xf32>
}

// A gradient of weights: a sum of transposed products, of the rows of a tensor from the last on, and of sums along an
// axis. The first operands are put side by side in the order of the rows, which are the whole tensor.
// CHECK-LABEL: func.func public @sums
// CHECK:         [[A:%.+]] = stablehlo.concatenate %arg2, %arg1, dim = 0 : {{.+}} -> tensor<6x5xf32>
// CHECK:         [[B:%.+]] = stablehlo.reshape %arg0 : (tensor<2x3x4xf32>) -> tensor<6x4xf32>
// CHECK:         [[P:%.+]] = stablehlo.dot_general [[A]], [[B]], contracting_dims = [0] x [0] : {{.+}} -> tensor<5x4xf32>
// CHECK:         [[T:%.+]] = stablehlo.transpose [[P]], dims = [1, 0]
// CHECK:         [[G:%.+]] = stablehlo.add %arg3, [[T]]
// CHECK:         [[S:%.+]] = stablehlo.concatenate %arg1, %arg2, dim = 0
// CHECK:         [[R:%.+]] = stablehlo.reduce([[S]] init: {{.+}}) applies stablehlo.add across dimensions = [0]
// CHECK:         [[H:%.+]] = stablehlo.add %arg4, [[R]]
// CHECK:         return [[G]], [[H]]
func.func public @sums(%xs: tensor<2x3x4xf32>, %a: tensor<3x5xf32>, %b: tensor<3x5xf32>, %g: tensor<4x5xf32>, %h: tensor<5xf32>) -> (tensor<4x5xf32>, tensor<5xf32>) {
  %i0 = stablehlo.constant dense<0> : tensor<i32>
  %i1 = stablehlo.constant dense<1> : tensor<i32>
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = stablehlo.dynamic_slice %xs, %i1, %i0, %i0, sizes = [1, 3, 4] : (tensor<2x3x4xf32>, tensor<i32>, tensor<i32>, tensor<i32>) -> tensor<1x3x4xf32>
  %1 = stablehlo.reshape %0 : (tensor<1x3x4xf32>) -> tensor<3x4xf32>
  %2 = stablehlo.dot_general %a, %1, contracting_dims = [0] x [0] : (tensor<3x5xf32>, tensor<3x4xf32>) -> tensor<5x4xf32>
  %3 = stablehlo.transpose %2, dims = [1, 0] : (tensor<5x4xf32>) -> tensor<4x5xf32>
  %4 = stablehlo.add %g, %3 : tensor<4x5xf32>
  %5 = stablehlo.dynamic_slice %xs, %i0, %i0, %i0, sizes = [1, 3, 4] : (tensor<2x3x4xf32>, tensor<i32>, tensor<i32>, tensor<i32>) -> tensor<1x3x4xf32>
  %6 = stablehlo.reshape %5 : (tensor<1x3x4xf32>) -> tensor<3x4xf32>
  %7 = stablehlo.dot_general %b, %6, contracting_dims = [0] x [0] : (tensor<3x5xf32>, tensor<3x4xf32>) -> tensor<5x4xf32>
  %8 = stablehlo.transpose %7, dims = [1, 0] : (tensor<5x4xf32>) -> tensor<4x5xf32>
  %9 = stablehlo.add %4, %8 : tensor<4x5xf32>
  %10 = stablehlo.reduce(%a init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<3x5xf32>, tensor<f32>) -> tensor<5xf32>
  %11 = stablehlo.add %h, %10 : tensor<5xf32>
  %12 = stablehlo.reduce(%b init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<3x5xf32>, tensor<f32>) -> tensor<5xf32>
  %13 = stablehlo.add %11, %12 : tensor<5xf32>
  return %9, %13 : tensor<4x5xf32>, tensor<5xf32>
}

// A partial sum that somebody reads, and products that are moved in two ways, stay.
// CHECK-LABEL: func.func public @others
// CHECK-COUNT-2: stablehlo.dot_general
// CHECK-LABEL: func.func public @read
// CHECK-COUNT-2: stablehlo.dot_general
func.func public @others(%a: tensor<3x4xf32>, %b: tensor<3x4xf32>) -> tensor<4x4xf32> {
  %0 = stablehlo.dot_general %a, %b, contracting_dims = [0] x [0] : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<4x4xf32>
  %1 = stablehlo.dot_general %b, %b, contracting_dims = [0] x [0] : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<4x4xf32>
  %2 = stablehlo.transpose %1, dims = [1, 0] : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %3 = stablehlo.add %0, %2 : tensor<4x4xf32>
  return %3 : tensor<4x4xf32>
}

func.func public @read(%a: tensor<3x4xf32>, %g: tensor<4x4xf32>) -> (tensor<4x4xf32>, tensor<4x4xf32>) {
  %0 = stablehlo.dot_general %a, %a, contracting_dims = [0] x [0] : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<4x4xf32>
  %1 = stablehlo.add %g, %0 : tensor<4x4xf32>
  %2 = stablehlo.dot_general %a, %a, contracting_dims = [0] x [0] : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<4x4xf32>
  %3 = stablehlo.add %1, %2 : tensor<4x4xf32>
  return %1, %3 : tensor<4x4xf32>, tensor<4x4xf32>
}
