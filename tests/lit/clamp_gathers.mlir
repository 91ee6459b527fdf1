// RUN: %sonew-opt --pass clamp-gathers %s | FileCheck %s

// A row of seven may begin at 0 to 6.
// CHECK-LABEL: func.func public @rows
// CHECK-DAG:     [[HIGH:%.+]] = stablehlo.constant dense<6> : tensor<3x1xi32>
// CHECK-DAG:     [[ZERO:%.+]] = stablehlo.constant dense<0> : tensor<3x1xi32>
// CHECK:         [[ABOVE:%.+]] = stablehlo.maximum %arg1, [[ZERO]]
// CHECK:         [[INSIDE:%.+]] = stablehlo.minimum [[ABOVE]], [[HIGH]]
// CHECK:         "stablehlo.gather"(%arg0, [[INSIDE]])
func.func public @rows(%table: tensor<7x4xf32>, %index: tensor<3x1xi32>) -> tensor<3x4xf32> {
  %0 = "stablehlo.gather"(%table, %index) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 4>}> : (tensor<7x4xf32>, tensor<3x1xi32>) -> tensor<3x4xf32>
  return %0 : tensor<3x4xf32>
}

// Slices of two by three: each component has a bound of its own.
// CHECK-LABEL: func.func public @slices
// CHECK-DAG:     [[A:%.+]] = stablehlo.constant dense<5> : tensor<1xi32>
// CHECK-DAG:     [[B:%.+]] = stablehlo.constant dense<1> : tensor<1xi32>
// CHECK:         [[BOTH:%.+]] = stablehlo.concatenate [[A]], [[B]], dim = 0
// CHECK:         [[HIGH:%.+]] = stablehlo.broadcast_in_dim [[BOTH]], dims = [0] : (tensor<2xi32>) -> tensor<2x6xi32>
// CHECK:         [[INSIDE:%.+]] = stablehlo.minimum %{{.+}}, [[HIGH]]
// CHECK:         "stablehlo.gather"(%arg0, [[INSIDE]])
func.func public @slices(%table: tensor<7x4xf32>, %index: tensor<2x6xi32>) -> tensor<6x2x3xf32> {
  %0 = "stablehlo.gather"(%table, %index) <{dimension_numbers = #stablehlo.gather<offset_dims = [1, 2], start_index_map = [0, 1], index_vector_dim = 0>, slice_sizes = array<i64: 2, 3>}> : (tensor<7x4xf32>, tensor<2x6xi32>) -> tensor<6x2x3xf32>
  return %0 : tensor<6x2x3xf32>
}

// Indices that are clamped, counted or constant are inside already.
// CHECK-LABEL: func.func public @inside
// CHECK-NOT:     stablehlo.minimum
// CHECK:         return
func.func public @inside(%table: tensor<7x4xf32>, %index: tensor<3x1xi32>) -> (tensor<3x4xf32>, tensor<7x4xf32>, tensor<2x4xf32>) {
  %low = stablehlo.constant dense<0> : tensor<i32>
  %high = stablehlo.constant dense<6> : tensor<i32>
  %clamped = stablehlo.clamp %low, %index, %high : (tensor<i32>, tensor<3x1xi32>, tensor<i32>) -> tensor<3x1xi32>
  %0 = "stablehlo.gather"(%table, %clamped) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 4>}> : (tensor<7x4xf32>, tensor<3x1xi32>) -> tensor<3x4xf32>
  %counted = stablehlo.iota dim = 0 : tensor<7x1xi32>
  %1 = "stablehlo.gather"(%table, %counted) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 4>}> : (tensor<7x4xf32>, tensor<7x1xi32>) -> tensor<7x4xf32>
  %fixed = stablehlo.constant dense<[[6], [1]]> : tensor<2x1xi32>
  %2 = "stablehlo.gather"(%table, %fixed) <{dimension_numbers = #stablehlo.gather<offset_dims = [1], collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1, 4>}> : (tensor<7x4xf32>, tensor<2x1xi32>) -> tensor<2x4xf32>
  return %0, %1, %2 : tensor<3x4xf32>, tensor<7x4xf32>, tensor<2x4xf32>
}
