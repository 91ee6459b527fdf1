// RUN: %sonew-opt --pass flatten-contractions %s | FileCheck %s

// The gradients of a layer on sequences of vectors.
// CHECK-LABEL: func.func public @layer
// CHECK:         [[D:%.+]] = stablehlo.reshape %arg0 : (tensor<4x6x8xf32>) -> tensor<24x8xf32>
// CHECK:         [[X:%.+]] = stablehlo.reshape %arg1 : (tensor<4x6x5xf32>) -> tensor<24x5xf32>
// CHECK:         [[KERNEL:%.+]] = stablehlo.dot_general [[D]], [[X]], contracting_dims = [0] x [0] : (tensor<24x8xf32>, tensor<24x5xf32>) -> tensor<8x5xf32>
// CHECK:         [[ROWS:%.+]] = stablehlo.reshape %arg0 : (tensor<4x6x8xf32>) -> tensor<24x8xf32>
// CHECK:         [[FLAT:%.+]] = stablehlo.dot_general [[ROWS]], %arg2, contracting_dims = [1] x [1] : (tensor<24x8xf32>, tensor<5x8xf32>) -> tensor<24x5xf32>
// CHECK:         [[INPUT:%.+]] = stablehlo.reshape [[FLAT]] : (tensor<24x5xf32>) -> tensor<4x6x5xf32>
// CHECK:         return [[KERNEL]], [[INPUT]]
func.func public @layer(%d: tensor<4x6x8xf32>, %x: tensor<4x6x5xf32>, %w: tensor<5x8xf32>) -> (tensor<8x5xf32>, tensor<4x6x5xf32>) {
  %kernel = stablehlo.dot_general %d, %x, contracting_dims = [0, 1] x [0, 1] : (tensor<4x6x8xf32>, tensor<4x6x5xf32>) -> tensor<8x5xf32>
  %input = stablehlo.dot_general %d, %w, contracting_dims = [2] x [1] : (tensor<4x6x8xf32>, tensor<5x8xf32>) -> tensor<4x6x5xf32>
  return %kernel, %input : tensor<8x5xf32>, tensor<4x6x5xf32>
}

// Batches stay, at the places that they have in each operand.
// CHECK-LABEL: func.func public @batches
// CHECK:         stablehlo.dot_general {{.+}}, batching_dims = [0] x [1], contracting_dims = [1] x [0] : (tensor<2x12x5xf32>, tensor<12x2x7xf32>) -> tensor<2x5x7xf32>
// CHECK:         stablehlo.reshape {{.+}} : (tensor<2x5x7xf32>) -> tensor<2x5x7x1xf32>
func.func public @batches(%a: tensor<2x3x4x5xf32>, %b: tensor<3x4x2x7x1xf32>) -> tensor<2x5x7x1xf32> {
  %product = stablehlo.dot_general %a, %b, batching_dims = [0] x [2], contracting_dims = [1, 2] x [0, 1] : (tensor<2x3x4x5xf32>, tensor<3x4x2x7x1xf32>) -> tensor<2x5x7x1xf32>
  return %product : tensor<2x5x7x1xf32>
}

// Axes in another order in one operand stay in both, and so do those that are apart.
// CHECK-LABEL: func.func public @others
// CHECK-NOT:     stablehlo.reshape
// CHECK:         return
func.func public @others(%a: tensor<3x4x5xf32>, %b: tensor<4x3xf32>, %c: tensor<5x4x5xf32>, %d: tensor<4xf32>) -> (tensor<5xf32>, tensor<5x5xf32>, tensor<3x5xf32>) {
  %turned = stablehlo.dot_general %a, %b, contracting_dims = [0, 1] x [1, 0] : (tensor<3x4x5xf32>, tensor<4x3xf32>) -> tensor<5xf32>
  %apart = stablehlo.dot_general %c, %d, contracting_dims = [1] x [0] : (tensor<5x4x5xf32>, tensor<4xf32>) -> tensor<5x5xf32>
  %also = stablehlo.dot_general %a, %d, contracting_dims = [1] x [0] : (tensor<3x4x5xf32>, tensor<4xf32>) -> tensor<3x5xf32>
  return %turned, %apart, %also : tensor<5xf32>, tensor<5x5xf32>, tensor<3x5xf32>
}
