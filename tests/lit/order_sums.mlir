// RUN: %sonew-opt --pass order-sums %s | FileCheck %s

// CHECK-LABEL: func.func public @repeated_vector
// CHECK:         [[PRODUCT:%.+]] = stablehlo.multiply
// CHECK:         [[INNER:%.+]] = stablehlo.reduce([[PRODUCT]] init: %cst) applies stablehlo.add across dimensions = [1] : (tensor<6x5xf32>, tensor<f32>) -> tensor<6xf32>
// CHECK:         [[OUTER:%.+]] = stablehlo.reduce([[INNER]] init: %cst) applies stablehlo.add across dimensions = [0] : (tensor<6xf32>, tensor<f32>) -> tensor<f32>
// CHECK:         return [[OUTER]]
func.func public @repeated_vector(%v: tensor<5xf32>, %m: tensor<6x5xf32>) -> tensor<f32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %row = stablehlo.broadcast_in_dim %v, dims = [1] : (tensor<5xf32>) -> tensor<1x5xf32>
  %rows = stablehlo.broadcast_in_dim %row, dims = [0, 1] : (tensor<1x5xf32>) -> tensor<6x5xf32>
  %product = stablehlo.multiply %rows, %m : tensor<6x5xf32>
  %sum = stablehlo.reduce(%product init: %zero) applies stablehlo.add across dimensions = [0, 1] : (tensor<6x5xf32>, tensor<f32>) -> tensor<f32>
  return %sum : tensor<f32>
}

// The axis of one element goes with the axis that both have; the axis that is not summed stays.
// CHECK-LABEL: func.func public @two_matrices
// CHECK:         stablehlo.reduce({{.+}}) applies stablehlo.add across dimensions = [2, 3] : (tensor<4x6x5x1xf32>, tensor<f32>) -> tensor<4x6xf32>
// CHECK:         stablehlo.reduce({{.+}}) applies stablehlo.add across dimensions = [1] : (tensor<4x6xf32>, tensor<f32>) -> tensor<4xf32>
func.func public @two_matrices(%a: tensor<4x5xf32>, %b: tensor<5x6xf32>) -> tensor<4xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %turned = stablehlo.transpose %b, dims = [1, 0] : (tensor<5x6xf32>) -> tensor<6x5xf32>
  %left = stablehlo.broadcast_in_dim %a, dims = [0, 2] : (tensor<4x5xf32>) -> tensor<4x6x5x1xf32>
  %right = stablehlo.broadcast_in_dim %turned, dims = [1, 2] : (tensor<6x5xf32>) -> tensor<4x6x5x1xf32>
  %product = stablehlo.multiply %left, %right : tensor<4x6x5x1xf32>
  %sum = stablehlo.reduce(%product init: %zero) applies stablehlo.add across dimensions = [1, 2, 3] : (tensor<4x6x5x1xf32>, tensor<f32>) -> tensor<4xf32>
  return %sum : tensor<4xf32>
}

// Nothing in common, everything in common, a number: these are compiled as they are.
// CHECK-LABEL: func.func public @others
// CHECK-COUNT-3: across dimensions = [0, 1] : (tensor<6x5xf32>, tensor<f32>) -> tensor<f32>
// CHECK-NOT:     stablehlo.reduce
func.func public @others(%u: tensor<6xf32>, %v: tensor<5xf32>, %m: tensor<6x5xf32>) -> (tensor<f32>, tensor<f32>, tensor<f32>) {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %two = stablehlo.constant dense<2.0> : tensor<6x5xf32>
  %left = stablehlo.broadcast_in_dim %u, dims = [0] : (tensor<6xf32>) -> tensor<6x5xf32>
  %right = stablehlo.broadcast_in_dim %v, dims = [1] : (tensor<5xf32>) -> tensor<6x5xf32>
  %outer = stablehlo.multiply %left, %right : tensor<6x5xf32>
  %square = stablehlo.multiply %m, %m : tensor<6x5xf32>
  %double = stablehlo.multiply %m, %two : tensor<6x5xf32>
  %a = stablehlo.reduce(%outer init: %zero) applies stablehlo.add across dimensions = [0, 1] : (tensor<6x5xf32>, tensor<f32>) -> tensor<f32>
  %b = stablehlo.reduce(%square init: %zero) applies stablehlo.add across dimensions = [0, 1] : (tensor<6x5xf32>, tensor<f32>) -> tensor<f32>
  %c = stablehlo.reduce(%double init: %zero) applies stablehlo.add across dimensions = [0, 1] : (tensor<6x5xf32>, tensor<f32>) -> tensor<f32>
  return %a, %b, %c : tensor<f32>, tensor<f32>, tensor<f32>
}

// What `jnp.tile` makes, a function of it, and of two repeated vectors.
// CHECK-LABEL: func.func public @tiled_vectors
// CHECK:         stablehlo.reduce({{.+}}) applies stablehlo.add across dimensions = [2] : (tensor<4x2x5xf32>, tensor<f32>) -> tensor<4x2xf32>
// CHECK:         stablehlo.reduce({{.+}}) applies stablehlo.add across dimensions = [0, 1] : (tensor<4x2xf32>, tensor<f32>) -> tensor<f32>
func.func public @tiled_vectors(%u: tensor<1x5xf32>, %v: tensor<5xf32>, %m: tensor<4x2x5xf32>) -> tensor<f32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %rows = stablehlo.broadcast_in_dim %u, dims = [0, 1] : (tensor<1x5xf32>) -> tensor<2x5xf32>
  %flat = stablehlo.reshape %rows : (tensor<2x5xf32>) -> tensor<10xf32>
  %tiled = stablehlo.reshape %flat : (tensor<10xf32>) -> tensor<2x5xf32>
  %curved = stablehlo.tanh %tiled : tensor<2x5xf32>
  %others = stablehlo.broadcast_in_dim %v, dims = [1] : (tensor<5xf32>) -> tensor<2x5xf32>
  %both = stablehlo.add %curved, %others : tensor<2x5xf32>
  %repeated = stablehlo.broadcast_in_dim %both, dims = [1, 2] : (tensor<2x5xf32>) -> tensor<4x2x5xf32>
  %product = stablehlo.multiply %repeated, %m : tensor<4x2x5xf32>
  %sum = stablehlo.reduce(%product init: %zero) applies stablehlo.add across dimensions = [0, 1, 2] : (tensor<4x2x5xf32>, tensor<f32>) -> tensor<f32>
  return %sum : tensor<f32>
}

// A reshape that makes one axis of a repeated and of another leaves nothing repeated.
// CHECK-LABEL: func.func public @flattened
// CHECK:         across dimensions = [0, 1] : (tensor<3x10xf32>, tensor<f32>) -> tensor<f32>
func.func public @flattened(%v: tensor<5xf32>, %m: tensor<3x10xf32>) -> tensor<f32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %rows = stablehlo.broadcast_in_dim %m, dims = [0, 1] : (tensor<3x10xf32>) -> tensor<3x10x2xf32>
  %wide = stablehlo.reshape %rows : (tensor<3x10x2xf32>) -> tensor<3x20xf32>
  %half = stablehlo.slice %wide [0:3, 0:10] : (tensor<3x20xf32>) -> tensor<3x10xf32>
  %pairs = stablehlo.broadcast_in_dim %v, dims = [0] : (tensor<5xf32>) -> tensor<5x2xf32>
  %line = stablehlo.reshape %pairs : (tensor<5x2xf32>) -> tensor<10xf32>
  %lines = stablehlo.broadcast_in_dim %line, dims = [1] : (tensor<10xf32>) -> tensor<3x10xf32>
  %most = stablehlo.subtract %half, %lines : tensor<3x10xf32>
  %product = stablehlo.multiply %most, %m : tensor<3x10xf32>
  %sum = stablehlo.reduce(%product init: %zero) applies stablehlo.add across dimensions = [0, 1] : (tensor<3x10xf32>, tensor<f32>) -> tensor<f32>
  return %sum : tensor<f32>
}

// A gather from a single row, a selection between a tensor and itself, a slice, and a product that is transposed.
// CHECK-LABEL: func.func public @gathered_row
// CHECK:         stablehlo.reduce({{.+}}) applies stablehlo.add across dimensions = [1] : (tensor<3x5xf32>, tensor<f32>) -> tensor<3xf32>
func.func public @gathered_row(%v: tensor<1x5xf32>, %index: tensor<3x1xi32>, %m: tensor<3x5xf32>) -> tensor<f32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %rows = "stablehlo.gather"(%v, %index) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 5>}> : (tensor<1x5xf32>, tensor<3x1xi32>) -> tensor<3x5xf32>
  %product = stablehlo.multiply %rows, %m : tensor<3x5xf32>
  %sum = stablehlo.reduce(%product init: %zero) applies stablehlo.add across dimensions = [0, 1] : (tensor<3x5xf32>, tensor<f32>) -> tensor<f32>
  return %sum : tensor<f32>
}

// CHECK-LABEL: func.func public @selected
// CHECK:         stablehlo.reduce({{.+}}) applies stablehlo.add across dimensions = [1] : (tensor<3x5xf32>, tensor<f32>) -> tensor<3xf32>
func.func public @selected(%v: tensor<5xf32>, %one: tensor<3x5xi1>, %m: tensor<3x5xf32>) -> tensor<f32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %rows = stablehlo.broadcast_in_dim %v, dims = [1] : (tensor<5xf32>) -> tensor<3x5xf32>
  %flat = stablehlo.reshape %rows : (tensor<3x5xf32>) -> tensor<15xf32>
  %equal = stablehlo.convert %flat : tensor<15xf32>
  %same = stablehlo.reshape %equal : (tensor<15xf32>) -> tensor<3x5xf32>
  %either = stablehlo.select %one, %rows, %same : tensor<3x5xi1>, tensor<3x5xf32>
  %product = stablehlo.multiply %either, %m : tensor<3x5xf32>
  %sum = stablehlo.reduce(%product init: %zero) applies stablehlo.add across dimensions = [0, 1] : (tensor<3x5xf32>, tensor<f32>) -> tensor<f32>
  return %sum : tensor<f32>
}

// CHECK-LABEL: func.func public @moved
// CHECK:         stablehlo.reduce({{.+}}) applies stablehlo.add across dimensions = [0] : (tensor<5x3xf32>, tensor<f32>) -> tensor<3xf32>
func.func public @moved(%v: tensor<5xf32>, %m: tensor<3x5xf32>) -> tensor<f32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %rows = stablehlo.broadcast_in_dim %v, dims = [1] : (tensor<5xf32>) -> tensor<4x5xf32>
  %some = stablehlo.slice %rows [1:4, 0:5] : (tensor<4x5xf32>) -> tensor<3x5xf32>
  %product = stablehlo.multiply %some, %m : tensor<3x5xf32>
  %moved = stablehlo.transpose %product, dims = [1, 0] : (tensor<3x5xf32>) -> tensor<5x3xf32>
  %sum = stablehlo.reduce(%moved init: %zero) applies stablehlo.add across dimensions = [0, 1] : (tensor<5x3xf32>, tensor<f32>) -> tensor<f32>
  return %sum : tensor<f32>
}

// Two rows to gather from: nothing is known to be repeated.
// CHECK-LABEL: func.func public @gathered_rows
// CHECK:         across dimensions = [0, 1] : (tensor<3x5xf32>, tensor<f32>) -> tensor<f32>
func.func public @gathered_rows(%v: tensor<2x5xf32>, %index: tensor<3x1xi32>, %m: tensor<3x5xf32>) -> tensor<f32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %rows = "stablehlo.gather"(%v, %index) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 5>}> : (tensor<2x5xf32>, tensor<3x1xi32>) -> tensor<3x5xf32>
  %product = stablehlo.multiply %rows, %m : tensor<3x5xf32>
  %sum = stablehlo.reduce(%product init: %zero) applies stablehlo.add across dimensions = [0, 1] : (tensor<3x5xf32>, tensor<f32>) -> tensor<f32>
  return %sum : tensor<f32>
}

// A gather by constant indices: whether they are within the tensor is known, so IREE reads the row without a selection.
// CHECK-LABEL: func.func public @known
// CHECK:         [[PRODUCT:%.+]] = stablehlo.multiply
// CHECK:         [[INNER:%.+]] = stablehlo.reduce([[PRODUCT]] init: {{.*}}) applies stablehlo.add across dimensions = [1]
// CHECK:         stablehlo.reduce([[INNER]] init: {{.*}}) applies stablehlo.add across dimensions = [0]
func.func public @known(%v: tensor<1x5xf32>, %m: tensor<3x5xf32>) -> tensor<f32> {
  %indices = stablehlo.constant dense<[[0], [-1], [0]]> : tensor<3x1xi32>
  %zeros = stablehlo.constant dense<0> : tensor<3x1xi32>
  %inside = stablehlo.compare GE, %indices, %zeros, SIGNED : (tensor<3x1xi32>, tensor<3x1xi32>) -> tensor<3x1xi1>
  %flat = stablehlo.reshape %inside : (tensor<3x1xi1>) -> tensor<3xi1>
  %mask = stablehlo.broadcast_in_dim %flat, dims = [0] : (tensor<3xi1>) -> tensor<3x5xi1>
  %rows = "stablehlo.gather"(%v, %indices) <{dimension_numbers = #stablehlo.gather<offset_dims = [1],
    collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 5>}>
    : (tensor<1x5xf32>, tensor<3x1xi32>) -> tensor<3x5xf32>
  %nan = stablehlo.constant dense<0x7FC00000> : tensor<3x5xf32>
  %filled = stablehlo.select %mask, %rows, %nan : tensor<3x5xi1>, tensor<3x5xf32>
  %product = stablehlo.multiply %filled, %m : tensor<3x5xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %sum = stablehlo.reduce(%product init: %zero) applies stablehlo.add across dimensions = [0, 1]
    : (tensor<3x5xf32>, tensor<f32>) -> tensor<f32>
  return %sum : tensor<f32>
}

// CHECK-LABEL: func.func public @empty
// CHECK:         stablehlo.reduce
func.func public @empty(%x: tensor<0x3xf32>, %y: tensor<0x5xf32>) -> tensor<f32> {
  %z = stablehlo.constant dense<0.0> : tensor<f32>
  %a = stablehlo.reshape %x : (tensor<0x3xf32>) -> tensor<0x5xf32>
  %m = stablehlo.multiply %a, %y : tensor<0x5xf32>
  %r = stablehlo.reduce(%m init: %z) applies stablehlo.add across dimensions = [0, 1] : (tensor<0x5xf32>, tensor<f32>) -> tensor<f32>
  return %r : tensor<f32>
}
