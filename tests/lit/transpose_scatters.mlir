// RUN: %sonew-opt --pass transpose-scatters %s | FileCheck %s

// The window of axis 1 lies between the batch and what is indexed: the operand is transposed, and the result back.
// CHECK-LABEL: func.func public @labels
// CHECK:         [[MOVED:%.+]] = stablehlo.transpose %arg0, dims = [0, 2, 1] : (tensor<6x3x10xf32>) -> tensor<6x10x3xf32>
// CHECK-NEXT:    [[SUMS:%.+]] = "stablehlo.scatter"([[MOVED]], %arg1, %arg2)
// CHECK-SAME:      update_window_dims = [1], inserted_window_dims = [1], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [1], index_vector_dim = 2
// CHECK:         }) : (tensor<6x10x3xf32>, tensor<6x1x1xi32>, tensor<6x3x1xf32>) -> tensor<6x10x3xf32>
// CHECK-NEXT:    [[BACK:%.+]] = stablehlo.transpose [[SUMS]], dims = [0, 2, 1] : (tensor<6x10x3xf32>) -> tensor<6x3x10xf32>
// CHECK-NEXT:    return [[BACK]] : tensor<6x3x10xf32>
func.func public @labels(%zeros: tensor<6x3x10xf32>, %index: tensor<6x1x1xi32>, %added: tensor<6x3x1xf32>) -> tensor<6x3x10xf32> {
  %0 = "stablehlo.scatter"(%zeros, %index, %added) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [2], input_batching_dims = [0], scatter_indices_batching_dims = [0], scatter_dims_to_operand_dims = [2], index_vector_dim = 2>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %1 = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %1 : tensor<f32>
  }) : (tensor<6x3x10xf32>, tensor<6x1x1xi32>, tensor<6x3x1xf32>) -> tensor<6x3x10xf32>
  return %0 : tensor<6x3x10xf32>
}

// What is indexed comes first as it is, or has no window beside it.
// CHECK-LABEL: func.func public @rows
// CHECK-NOT:     transpose
// CHECK:         return
func.func public @rows(%zeros: tensor<10x4xf32>, %index: tensor<2x1xi32>, %added: tensor<2x4xf32>) -> tensor<10x4xf32> {
  %0 = "stablehlo.scatter"(%zeros, %index, %added) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %1 = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %1 : tensor<f32>
  }) : (tensor<10x4xf32>, tensor<2x1xi32>, tensor<2x4xf32>) -> tensor<10x4xf32>
  return %0 : tensor<10x4xf32>
}
