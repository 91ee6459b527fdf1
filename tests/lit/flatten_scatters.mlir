// RUN: %sonew-opt --pass flatten-scatters %s | FileCheck %s

// Windows of two by three, of which the first axis is indexed: an index for each of its two rows.
// CHECK-LABEL: func.func public @slices
// CHECK:         [[INDEX:%.+]] = stablehlo.broadcast_in_dim %{{.+}}, dims = [0] : (tensor<5xi32>) -> tensor<5x2xi32>
// CHECK:         [[ROW:%.+]] = stablehlo.iota dim = 1 : tensor<5x2xi32>
// CHECK:         [[EACH:%.+]] = stablehlo.add [[INDEX]], [[ROW]]
// CHECK:         [[INDICES:%.+]] = stablehlo.reshape [[EACH]] : (tensor<5x2xi32>) -> tensor<5x2x1xi32>
// CHECK:         "stablehlo.scatter"(%arg0, [[INDICES]], %arg2)
// CHECK-SAME:      update_window_dims = [2], inserted_window_dims = [1], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 2
func.func public @slices(%tables: tensor<5x7x3xf32>, %index: tensor<5x1xi32>, %put: tensor<5x2x3xf32>) -> tensor<5x7x3xf32> {
  %0 = "stablehlo.scatter"(%tables, %index, %put) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>, unique_indices = true}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    stablehlo.return %b : tensor<f32>
  }) : (tensor<5x7x3xf32>, tensor<5x1xi32>, tensor<5x2x3xf32>) -> tensor<5x7x3xf32>
  return %0 : tensor<5x7x3xf32>
}

// Windows of all columns and two of three planes: the index of a column is 0 and goes, and a plane gets an index.
// CHECK-LABEL: func.func public @partly_covered
// CHECK:         [[ROWS:%.+]] = stablehlo.reshape %{{.+}} : (tensor<5x2xi32>) -> tensor<5x2x1xi32>
// CHECK:         [[PLANES:%.+]] = stablehlo.reshape %{{.+}} : (tensor<5x2xi32>) -> tensor<5x2x1xi32>
// CHECK:         [[INDICES:%.+]] = stablehlo.concatenate [[ROWS]], [[PLANES]], dim = 2
// CHECK:         "stablehlo.scatter"(%arg0, [[INDICES]], %arg2)
// CHECK-SAME:      update_window_dims = [1], inserted_window_dims = [0, 2], scatter_dims_to_operand_dims = [0, 2], index_vector_dim = 2
func.func public @partly_covered(%table: tensor<7x4x3xf32>, %index: tensor<5x2xi32>, %put: tensor<5x4x2xf32>) -> tensor<7x4x3xf32> {
  %0 = "stablehlo.scatter"(%table, %index, %put) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1, 2], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0, 1], index_vector_dim = 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    stablehlo.return %b : tensor<f32>
  }) : (tensor<7x4x3xf32>, tensor<5x2xi32>, tensor<5x4x2xf32>) -> tensor<7x4x3xf32>
  return %0 : tensor<7x4x3xf32>
}

// One index for all of the tensor: IREE takes no scatter without an index, so the first axis keeps its own.
// CHECK-LABEL: func.func public @covered
// CHECK:         [[ROW:%.+]] = stablehlo.iota dim = 0 : tensor<7xi32>
// CHECK:         update_window_dims = [1], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1
func.func public @covered(%table: tensor<7x3xf32>, %index: tensor<2xi8>, %put: tensor<7x3xf32>) -> tensor<7x3xf32> {
  %0 = "stablehlo.scatter"(%table, %index, %put) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [0, 1], scatter_dims_to_operand_dims = [0, 1], index_vector_dim = 0>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    stablehlo.return %b : tensor<f32>
  }) : (tensor<7x3xf32>, tensor<2xi8>, tensor<7x3xf32>) -> tensor<7x3xf32>
  return %0 : tensor<7x3xf32>
}

// Every window covers the axes without an index.
// CHECK-LABEL: func.func public @others
// CHECK-NOT:     stablehlo.iota
// CHECK:         return
func.func public @others(%table: tensor<7x3xf32>, %index: tensor<5x1xi32>, %put: tensor<5x3xf32>, %tables: tensor<5x7xf32>, %added: tensor<5xf32>) -> (tensor<7x3xf32>, tensor<5x7xf32>) {
  %0 = "stablehlo.scatter"(%table, %index, %put) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    stablehlo.return %b : tensor<f32>
  }) : (tensor<7x3xf32>, tensor<5x1xi32>, tensor<5x3xf32>) -> tensor<7x3xf32>
  %1 = "stablehlo.scatter"(%tables, %index, %added) <{scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [1], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    stablehlo.return %b : tensor<f32>
  }) : (tensor<5x7xf32>, tensor<5x1xi32>, tensor<5xf32>) -> tensor<5x7xf32>
  return %0, %1 : tensor<7x3xf32>, tensor<5x7xf32>
}
