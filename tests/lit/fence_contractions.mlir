// RUN: %sonew-opt --pass fence-contractions %s | FileCheck %s

// A product that a bias is added to, even after a conversion, is read by way of a copy, and one that is scaled by a number
// that is not known, or by a tensor of its shape; one that is combined with constants and with itself is not.
// CHECK-LABEL: func.func public @step
// CHECK:         [[FIRST:%.+]] = stablehlo.dot_general %arg0, %arg1
// CHECK-NEXT:    [[APART:%.+]] = "flow.tensor.clone"([[FIRST]]) : (tensor<4x4xf32>) -> tensor<4x4xf32>
// CHECK-NEXT:    stablehlo.convert [[APART]]
// CHECK:         [[SECOND:%.+]] = stablehlo.dot_general %arg1, %arg0
// CHECK-NEXT:    stablehlo.subtract [[SECOND]]
// CHECK:         [[THIRD:%.+]] = stablehlo.dot_general %arg0, %arg0
// CHECK-NEXT:    "flow.tensor.clone"([[THIRD]])
// CHECK:         [[FOURTH:%.+]] = stablehlo.dot_general %arg1, %arg1
// CHECK-NEXT:    [[ALONE:%.+]] = "flow.tensor.clone"([[FOURTH]])
// CHECK-NEXT:    stablehlo.multiply [[ALONE]], %arg0
func.func public @step(%x: tensor<4x4xf32>, %w: tensor<4x4xf32>, %b: tensor<4xbf16>, %rate: tensor<f32>) -> (tensor<4x4xbf16>, tensor<4x4xf32>, tensor<4x4xf32>, tensor<4x4xf32>) {
  %scale = stablehlo.constant dense<0.5> : tensor<f32>
  %0 = stablehlo.broadcast_in_dim %b, dims = [1] : (tensor<4xbf16>) -> tensor<4x4xbf16>
  %1 = stablehlo.broadcast_in_dim %scale, dims = [] : (tensor<f32>) -> tensor<4x4xf32>
  %2 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %3 = stablehlo.convert %2 : (tensor<4x4xf32>) -> tensor<4x4xbf16>
  %4 = stablehlo.add %3, %0 : tensor<4x4xbf16>
  %5 = stablehlo.dot_general %w, %x, contracting_dims = [1] x [0] : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %less = stablehlo.subtract %5, %1 : tensor<4x4xf32>
  %more = stablehlo.multiply %less, %1 : tensor<4x4xf32>
  %6 = stablehlo.multiply %5, %more : tensor<4x4xf32>
  %7 = stablehlo.broadcast_in_dim %rate, dims = [] : (tensor<f32>) -> tensor<4x4xf32>
  %8 = stablehlo.dot_general %x, %x, contracting_dims = [1] x [0] : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %9 = stablehlo.multiply %8, %7 : tensor<4x4xf32>
  %10 = stablehlo.dot_general %w, %w, contracting_dims = [1] x [0] : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %11 = stablehlo.multiply %10, %x : tensor<4x4xf32>
  return %4, %6, %9, %11 : tensor<4x4xbf16>, tensor<4x4xf32>, tensor<4x4xf32>, tensor<4x4xf32>
}

// An activation that one product reads, rounded or not, is stored before it is packed; one that is read twice is anyway.
// CHECK-LABEL: func.func public @predict
// CHECK:         [[FIRST:%.+]] = stablehlo.tanh %arg0
// CHECK-NEXT:    [[APART:%.+]] = "flow.tensor.clone"([[FIRST]]) : (tensor<4x4xf32>) -> tensor<4x4xf32>
// CHECK-NEXT:    [[ROUNDED:%.+]] = stablehlo.convert [[APART]]
// CHECK-NEXT:    stablehlo.dot_general [[ROUNDED]], %arg1
// CHECK:         [[SECOND:%.+]] = stablehlo.tanh
// CHECK-NEXT:    stablehlo.dot_general [[SECOND]], %arg1
func.func public @predict(%x: tensor<4x4xf32>, %w: tensor<4x4xbf16>) -> (tensor<4x4xbf16>, tensor<4x4xbf16>) {
  %0 = stablehlo.tanh %x : tensor<4x4xf32>
  %1 = stablehlo.convert %0 : (tensor<4x4xf32>) -> tensor<4x4xbf16>
  %2 = stablehlo.dot_general %1, %w, contracting_dims = [1] x [0] : (tensor<4x4xbf16>, tensor<4x4xbf16>) -> tensor<4x4xbf16>
  %3 = stablehlo.tanh %2 : tensor<4x4xbf16>
  %4 = stablehlo.dot_general %3, %w, contracting_dims = [1] x [0] : (tensor<4x4xbf16>, tensor<4x4xbf16>) -> tensor<4x4xbf16>
  return %3, %4 : tensor<4x4xbf16>, tensor<4x4xbf16>
}

// A part that a product reads, itself or what elementwise operations make of it, is stored first; others are not.
// CHECK-LABEL: func.func public @parts
// CHECK:         [[PART:%.+]] = stablehlo.slice %arg0 [0:4, 0:8]
// CHECK-NEXT:    [[STORED:%.+]] = "flow.tensor.clone"([[PART]]) : (tensor<4x8xf32>) -> tensor<4x8xf32>
// CHECK-NEXT:    [[TURNED:%.+]] = stablehlo.transpose [[STORED]]
// CHECK-NEXT:    [[OTHER:%.+]] = stablehlo.dynamic_slice %arg0
// CHECK-NEXT:    [[KEPT:%.+]] = "flow.tensor.clone"([[OTHER]])
// CHECK-NEXT:    [[TWICE:%.+]] = stablehlo.add [[KEPT]], [[KEPT]]
// CHECK-NEXT:    [[PRODUCT:%.+]] = stablehlo.dot_general [[TURNED]], [[TWICE]]
// CHECK-NEXT:    [[ROWS:%.+]] = stablehlo.slice [[PRODUCT]]
// CHECK-NEXT:    return [[ROWS]]
func.func public @parts(%x: tensor<4x16xf32>, %i: tensor<i32>) -> tensor<4x8xf32> {
  %0 = stablehlo.slice %x [0:4, 0:8] : (tensor<4x16xf32>) -> tensor<4x8xf32>
  %1 = stablehlo.transpose %0, dims = [1, 0] : (tensor<4x8xf32>) -> tensor<8x4xf32>
  %2 = stablehlo.dynamic_slice %x, %i, %i, sizes = [4, 8] : (tensor<4x16xf32>, tensor<i32>, tensor<i32>) -> tensor<4x8xf32>
  %3 = stablehlo.add %2, %2 : tensor<4x8xf32>
  %4 = stablehlo.dot_general %1, %3, contracting_dims = [1] x [0] : (tensor<8x4xf32>, tensor<4x8xf32>) -> tensor<8x8xf32>
  %5 = stablehlo.slice %4 [0:4, 0:8] : (tensor<8x8xf32>) -> tensor<4x8xf32>
  return %5 : tensor<4x8xf32>
}

// A product of many matrices reads copies of products.
// CHECK-LABEL: func.func public @scores
// CHECK:         [[K:%.+]] = stablehlo.dot_general %arg0, %arg1
// CHECK:         [[T:%.+]] = stablehlo.transpose [[K]]
// CHECK:         [[HELD:%.+]] = "flow.tensor.clone"([[T]])
// CHECK:         stablehlo.dot_general %arg0, [[HELD]]
func.func public @scores(%x: tensor<3x6x4xf32>, %k: tensor<4x4xf32>) -> tensor<3x6x6xf32> {
  %0 = stablehlo.dot_general %x, %k, contracting_dims = [2] x [0] : (tensor<3x6x4xf32>, tensor<4x4xf32>) -> tensor<3x6x4xf32>
  %1 = stablehlo.transpose %0, dims = [0, 2, 1] : (tensor<3x6x4xf32>) -> tensor<3x4x6xf32>
  %2 = stablehlo.dot_general %x, %1, batching_dims = [0] x [0], contracting_dims = [2] x [1] : (tensor<3x6x4xf32>, tensor<3x4x6xf32>) -> tensor<3x6x6xf32>
  return %2 : tensor<3x6x6xf32>
}

// A number that a whole tensor is reduced to is stored before an operand is scaled by it; rows of sums are not.
// CHECK-LABEL: func.func public @scaled
// CHECK:         [[SUM:%.+]] = stablehlo.reduce(%arg1
// CHECK-NEXT:    [[STORED:%.+]] = "flow.tensor.clone"([[SUM]]) : (tensor<f32>) -> tensor<f32>
// CHECK-NEXT:    stablehlo.broadcast_in_dim [[STORED]]
// CHECK:         [[SUMS:%.+]] = stablehlo.reduce(%arg1
// CHECK-NEXT:    stablehlo.multiply {{.+}}, [[SUMS]]
func.func public @scaled(%x: tensor<4x2xf32>, %y: tensor<5x4xf32>, %w: tensor<2x3xf32>, %v: tensor<4xf32>) -> (tensor<4x3xf32>, tensor<2xf32>) {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %sum = stablehlo.reduce(%y init: %zero) applies stablehlo.add across dimensions = [0, 1] : (tensor<5x4xf32>, tensor<f32>) -> tensor<f32>
  %all = stablehlo.broadcast_in_dim %sum, dims = [] : (tensor<f32>) -> tensor<4x2xf32>
  %scaled = stablehlo.multiply %x, %all : tensor<4x2xf32>
  %0 = stablehlo.dot_general %scaled, %w, contracting_dims = [1] x [0] : (tensor<4x2xf32>, tensor<2x3xf32>) -> tensor<4x3xf32>
  %sums = stablehlo.reduce(%y init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<5x4xf32>, tensor<f32>) -> tensor<4xf32>
  %row = stablehlo.multiply %v, %sums : tensor<4xf32>
  %1 = stablehlo.dot_general %row, %x, contracting_dims = [0] x [0] : (tensor<4xf32>, tensor<4x2xf32>) -> tensor<2xf32>
  return %0, %1 : tensor<4x3xf32>, tensor<2xf32>
}
