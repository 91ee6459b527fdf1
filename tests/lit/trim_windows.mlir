// RUN: %sonew-opt --pass trim-windows %s | FileCheck %s

// The window has one place along the first axis: what it does not cover goes, and the stride.
// CHECK-LABEL: func.func public @convolution
// CHECK:         [[PART:%.+]] = stablehlo.slice %arg0 [0:2, 0:3, 0:7, 0:2]
// CHECK:         stablehlo.convolution([[PART]], %arg1)
// CHECK-SAME:      window = {stride = [1, 2]{{(, pad = \[\[0, 0\], \[0, 0\]\])?}}}
// CHECK-SAME:      -> tensor<2x1x3x4xf32>
func.func public @convolution(%x: tensor<2x5x7x2xf32>, %w: tensor<3x3x2x4xf32>) -> tensor<2x1x3x4xf32> {
  %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {stride = [3, 2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x7x2xf32>, tensor<3x3x2x4xf32>) -> tensor<2x1x3x4xf32>
  return %0 : tensor<2x1x3x4xf32>
}

// Padding goes before elements do.
// CHECK-LABEL: func.func public @padded
// CHECK-NOT:     stablehlo.slice
// CHECK:         stablehlo.convolution(%arg0, %arg1)
// CHECK-SAME:      pad = {{\[\[}}1, 0]]
func.func public @padded(%x: tensor<1x2x1xf32>, %w: tensor<3x1x1xf32>) -> tensor<1x1x1xf32> {
  %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {stride = [4], pad = [[1, 2]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x2x1xf32>, tensor<3x1x1xf32>) -> tensor<1x1x1xf32>
  return %0 : tensor<1x1x1xf32>
}

// CHECK-LABEL: func.func public @pooling
// CHECK:         [[PART:%.+]] = stablehlo.slice %arg0 [0:3]
// CHECK:         "stablehlo.reduce_window"([[PART]], {{.*}}window_dimensions = array<i64: 3>, window_strides = array<i64: 1>
func.func public @pooling(%x: tensor<5xf32>) -> tensor<1xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = "stablehlo.reduce_window"(%x, %zero) <{window_dimensions = array<i64: 3>, window_strides = array<i64: 3>}> ({
    ^bb0(%a: tensor<f32>, %b: tensor<f32>):
      %sum = stablehlo.add %a, %b : tensor<f32>
      stablehlo.return %sum : tensor<f32>
  }) : (tensor<5xf32>, tensor<f32>) -> tensor<1xf32>
  return %0 : tensor<1xf32>
}

// Two places are left as they are.
// CHECK-LABEL: func.func public @two
// CHECK-NOT:     stablehlo.slice
// CHECK:         stride = [3]
func.func public @two(%x: tensor<1x8x1xf32>, %w: tensor<3x1x1xf32>) -> tensor<1x2x1xf32> {
  %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {stride = [3]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x8x1xf32>, tensor<3x1x1xf32>) -> tensor<1x2x1xf32>
  return %0 : tensor<1x2x1xf32>
}
