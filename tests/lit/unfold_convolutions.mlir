// RUN: %sonew-opt --pass unfold-convolutions %s | FileCheck %s
// RUN: %sonew-opt --pass unfold-convolutions:kept=2591 %s | FileCheck --check-prefix=ANEW %s

// A layer: the nine slices for the elements of the window, made along one axis after the other.
// CHECK-LABEL: func.func public @layer
// CHECK-COUNT-3: stablehlo.slice {{.+}} : (tensor<2x8x8x4xf32>) -> tensor<2x8x6x4xf32>
// CHECK:         stablehlo.concatenate {{.+}}, dim = 3 : {{.+}} -> tensor<2x8x6x12xf32>
// CHECK-COUNT-3: stablehlo.slice {{.+}} : (tensor<2x8x6x12xf32>) -> tensor<2x6x6x12xf32>
// CHECK:         [[U:%.+]] = stablehlo.concatenate {{.+}}, dim = 3 : {{.+}} -> tensor<2x6x6x36xf32>
// CHECK:         [[ROWS:%.+]] = stablehlo.reshape [[U]] : (tensor<2x6x6x36xf32>) -> tensor<72x36xf32>
// CHECK:         [[W:%.+]] = stablehlo.reshape %arg1 : (tensor<3x3x4x5xf32>) -> tensor<36x5xf32>
// CHECK:         [[P:%.+]] = stablehlo.dot_general [[ROWS]], [[W]], contracting_dims = [1] x [0] : {{.+}} -> tensor<72x5xf32>
// CHECK:         stablehlo.reshape [[P]] : (tensor<72x5xf32>) -> tensor<2x6x6x5xf32>
func.func public @layer(%x: tensor<2x8x8x4xf32>, %w: tensor<3x3x4x5xf32>) -> tensor<2x6x6x5xf32> {
  %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {} {batch_group_count = 1 : i64, feature_group_count = 1 : i64} : (tensor<2x8x8x4xf32>, tensor<3x3x4x5xf32>) -> tensor<2x6x6x5xf32>
  return %0 : tensor<2x6x6x5xf32>
}

// The gradient of its window: the slices for the places, which are the layer's, or made anew of the operand behind a
// barrier if they are large.
// CHECK-LABEL: func.func public @window
// CHECK:         stablehlo.slice %arg0
// ANEW-LABEL:  func.func public @window
// ANEW:          [[X:%.+]] = stablehlo.optimization_barrier %arg0
// ANEW:          stablehlo.slice [[X]]
// CHECK:         [[ROWS:%.+]] = stablehlo.reshape {{.+}} : (tensor<2x6x6x36xf32>) -> tensor<72x36xf32>
// CHECK:         [[G:%.+]] = stablehlo.reshape %arg1 : (tensor<2x6x6x5xf32>) -> tensor<72x5xf32>
// CHECK:         stablehlo.dot_general [[ROWS]], [[G]], contracting_dims = [0] x [0] : {{.+}} -> tensor<36x5xf32>
func.func public @window(%x: tensor<2x8x8x4xf32>, %g: tensor<2x6x6x5xf32>) -> tensor<3x3x4x5xf32> {
  %0 = stablehlo.convolution(%x, %g) dim_numbers = [f, 0, 1, b]x[i, 0, 1, o]->[0, 1, b, f], window = {} {batch_group_count = 1 : i64, feature_group_count = 1 : i64} : (tensor<2x8x8x4xf32>, tensor<2x6x6x5xf32>) -> tensor<3x3x4x5xf32>
  return %0 : tensor<3x3x4x5xf32>
}

// Few features: their products with each of the two elements of the window are added.
// CHECK-LABEL: func.func public @few_features
// CHECK:         [[P:%.+]] = stablehlo.dot_general {{.+}} : (tensor<21x6xf32>, tensor<6x4xf32>) -> tensor<21x4xf32>
// CHECK:         [[S:%.+]] = stablehlo.pad {{.+}}, low = [0, 1, 0], high = [0, 0, 0], interior = [0, 0, 0] : (tensor<3x7x4xf32>, tensor<f32>) -> tensor<3x8x4xf32>
// CHECK:         [[A:%.+]] = stablehlo.slice [[S]] [0:3, 0:7, 0:2]
// CHECK:         [[B:%.+]] = stablehlo.slice [[S]] [0:3, 1:8, 2:4]
// CHECK:         stablehlo.add [[A]], [[B]] : tensor<3x7x2xf32>
func.func public @few_features(%x: tensor<3x7x6xf32>, %w: tensor<2x6x2xf32>) -> tensor<3x7x2xf32> {
  %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {pad = [[1, 0]]} {batch_group_count = 1 : i64, feature_group_count = 1 : i64} : (tensor<3x7x6xf32>, tensor<2x6x2xf32>) -> tensor<3x7x2xf32>
  return %0 : tensor<3x7x2xf32>
}

// The gradient of the operand of a layer with strides of 2: the elements with even and with odd indices are made apart,
// of the window's first and last element and of its middle one.
// CHECK-LABEL: func.func public @strides
// CHECK:         [[P:%.+]] = stablehlo.dot_general {{.+}} : (tensor<12x6xf32>, tensor<6x6xf32>) -> tensor<12x6xf32>
// CHECK:         [[S:%.+]] = stablehlo.pad {{.+}}, low = [0, 1, 0], high = [0, 0, 0], interior = [0, 0, 0] : (tensor<3x4x6xf32>, tensor<f32>) -> tensor<3x5x6xf32>
// CHECK:         [[A:%.+]] = stablehlo.slice [[S]] [0:3, 0:4, 0:2]
// CHECK:         [[B:%.+]] = stablehlo.slice [[S]] [0:3, 1:5, 4:6]
// CHECK:         [[EVEN:%.+]] = stablehlo.add [[A]], [[B]] : tensor<3x4x2xf32>
// CHECK:         [[ODD:%.+]] = stablehlo.slice [[S]] [0:3, 1:5, 2:4]
// CHECK:         stablehlo.concatenate [[EVEN]], [[ODD]], dim = 2 : {{.+}} -> tensor<3x4x4xf32>
// CHECK:         stablehlo.reshape {{.+}} -> tensor<3x8x2xf32>
// CHECK:         stablehlo.slice {{.+}} [0:3, 0:7, 0:2]
func.func public @strides(%x: tensor<3x4x6xf32>, %w: tensor<3x6x2xf32>) -> tensor<3x7x2xf32> {
  %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {pad = [[2, 0]], lhs_dilate = [2]} {batch_group_count = 1 : i64, feature_group_count = 1 : i64} : (tensor<3x4x6xf32>, tensor<3x6x2xf32>) -> tensor<3x7x2xf32>
  return %0 : tensor<3x7x2xf32>
}

// A layer whose channels come before its axes of space: so do the slices, and the product is transposed apart from it.
// CHECK-LABEL: func.func public @channels_first
// CHECK:         [[T:%.+]] = stablehlo.transpose %arg0, dims = [1, 0, 2, 3] : {{.+}} -> tensor<4x2x8x8xf32>
// CHECK:         [[X:%.+]] = "flow.tensor.clone"([[T]])
// CHECK-COUNT-3: stablehlo.slice [[X]] {{.+}} -> tensor<4x2x8x6xf32>
// CHECK:         stablehlo.concatenate {{.+}}, dim = 0 : {{.+}} -> tensor<12x2x8x6xf32>
// CHECK:         [[U:%.+]] = stablehlo.concatenate {{.+}}, dim = 0 : {{.+}} -> tensor<36x2x6x6xf32>
// CHECK:         [[COLUMNS:%.+]] = stablehlo.reshape [[U]] : (tensor<36x2x6x6xf32>) -> tensor<36x72xf32>
// CHECK:         [[P:%.+]] = stablehlo.dot_general {{%.+}}, [[COLUMNS]], contracting_dims = [0] x [0] : {{.+}} -> tensor<5x72xf32>
// CHECK:         [[R:%.+]] = stablehlo.reshape [[P]] : (tensor<5x72xf32>) -> tensor<5x2x6x6xf32>
// CHECK:         [[C:%.+]] = "flow.tensor.clone"([[R]])
// CHECK:         stablehlo.transpose [[C]], dims = [1, 0, 2, 3] : {{.+}} -> tensor<2x5x6x6xf32>
func.func public @channels_first(%x: tensor<2x4x8x8xf32>, %w: tensor<5x4x3x3xf32>) -> tensor<2x5x6x6xf32> {
  %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, f, 0, 1]x[o, i, 0, 1]->[b, f, 0, 1], window = {} {batch_group_count = 1 : i64, feature_group_count = 1 : i64} : (tensor<2x4x8x8xf32>, tensor<5x4x3x3xf32>) -> tensor<2x5x6x6xf32>
  return %0 : tensor<2x5x6x6xf32>
}

// The gradient of its window where it has one feature and four channels: the slices are those of the result's gradient,
// with the places in reverse.
// CHECK-LABEL: func.func public @one_feature
// CHECK:         stablehlo.pad {{.+}}, low = [0, 0, 2, 2], high = [0, 0, 2, 2], interior = [0, 0, 0, 0] : (tensor<1x2x6x6xf32>, tensor<f32>) -> tensor<1x2x10x10xf32>
// CHECK:         stablehlo.concatenate {{.+}} -> tensor<9x2x8x8xf32>
// CHECK:         stablehlo.dot_general {{.+}}, contracting_dims = [1] x [1] : (tensor<9x128xf32>, tensor<4x128xf32>) -> tensor<9x4xf32>
// CHECK:         stablehlo.reverse {{.+}}, dims = [2, 3] : tensor<1x4x3x3xf32>
func.func public @one_feature(%x: tensor<2x4x8x8xf32>, %g: tensor<2x1x6x6xf32>) -> tensor<1x4x3x3xf32> {
  %0 = stablehlo.convolution(%x, %g) dim_numbers = [f, b, 0, 1]x[i, o, 0, 1]->[f, b, 0, 1], window = {} {batch_group_count = 1 : i64, feature_group_count = 1 : i64} : (tensor<2x4x8x8xf32>, tensor<2x1x6x6xf32>) -> tensor<1x4x3x3xf32>
  return %0 : tensor<1x4x3x3xf32>
}

// Groups stay.
// CHECK-LABEL: func.func public @groups
// CHECK:         stablehlo.convolution
func.func public @groups(%x: tensor<3x7x6xf32>, %w: tensor<2x1x6xf32>) -> tensor<3x6x6xf32> {
  %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {} {batch_group_count = 1 : i64, feature_group_count = 6 : i64} : (tensor<3x7x6xf32>, tensor<2x1x6xf32>) -> tensor<3x6x6xf32>
  return %0 : tensor<3x6x6xf32>
}

// Without axes of space nothing is unfolded.
// CHECK-LABEL: func.func public @no_space
// CHECK:         stablehlo.convolution
func.func public @no_space(%x: tensor<4x8xf32>, %w: tensor<8x4xf32>) -> tensor<4x4xf32> {
  %r = stablehlo.convolution(%x, %w) dim_numbers = [b, f]x[i, o]->[b, f], window = {} {batch_group_count = 1 : i64, feature_group_count = 1 : i64} : (tensor<4x8xf32>, tensor<8x4xf32>) -> tensor<4x4xf32>
  return %r : tensor<4x4xf32>
}
