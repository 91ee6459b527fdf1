// RUN: %sonew-opt --pass bound-scatters %s | FileCheck %s

// Nothing is added for an index outside, at the nearest place inside.
// CHECK-LABEL: func.func public @add
// CHECK:         [[ABOVE:%.+]] = stablehlo.compare GT, %arg1, %{{.+}}, SIGNED
// CHECK:         [[BELOW:%.+]] = stablehlo.compare LT, %arg1, %{{.+}}, SIGNED
// CHECK:         [[EITHER:%.+]] = stablehlo.or [[ABOVE]], [[BELOW]] : tensor<2x1xi1>
// CHECK:         [[OUTSIDE:%.+]] = stablehlo.reduce([[EITHER]] {{.*}} applies stablehlo.or across dimensions = [1]
// CHECK:         [[INDEX:%.+]] = stablehlo.minimum
// CHECK:         [[EACH:%.+]] = stablehlo.broadcast_in_dim [[OUTSIDE]], dims = [0] : (tensor<2xi1>) -> tensor<2x4xi1>
// CHECK:         [[NOTHING:%.+]] = stablehlo.constant dense<-0.000000e+00> : tensor<2x4xf32>
// CHECK:         [[UPDATE:%.+]] = stablehlo.select [[EACH]], [[NOTHING]], %arg2
// CHECK:         "stablehlo.scatter"(%arg0, [[INDEX]], [[UPDATE]])
// CHECK-SAME:      unique_indices = false
func.func public @add(%table: tensor<7x4xf32>, %index: tensor<2x1xi32>, %added: tensor<2x4xf32>) -> tensor<7x4xf32> {
  %0 = "stablehlo.scatter"(%table, %index, %added) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>, unique_indices = true}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %1 = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %1 : tensor<f32>
  }) : (tensor<7x4xf32>, tensor<2x1xi32>, tensor<2x4xf32>) -> tensor<7x4xf32>
  return %0 : tensor<7x4xf32>
}

// What is put somewhere has room behind the rows that there are, where it is cut off.
// CHECK-LABEL: func.func public @put
// CHECK-DAG:     [[BEHIND:%.+]] = stablehlo.constant dense<7> : tensor<2x1xi32>
// CHECK:         [[INDEX:%.+]] = stablehlo.select %{{.+}}, [[BEHIND]], %arg1
// CHECK:         [[ROOM:%.+]] = stablehlo.concatenate %arg0, %{{.+}}, dim = 0 : (tensor<7x4xf32>, tensor<1x4xf32>) -> tensor<8x4xf32>
// CHECK:         [[ALL:%.+]] = "stablehlo.scatter"([[ROOM]], [[INDEX]], %arg2)
// CHECK-SAME:      unique_indices = true
// CHECK:         [[INSIDE:%.+]] = stablehlo.slice [[ALL]] [0:7, 0:4]
// CHECK-NEXT:    return [[INSIDE]]
func.func public @put(%table: tensor<7x4xf32>, %index: tensor<2x1xi32>, %put: tensor<2x4xf32>) -> tensor<7x4xf32> {
  %0 = "stablehlo.scatter"(%table, %index, %put) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>, unique_indices = true}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    stablehlo.return %b : tensor<f32>
  }) : (tensor<7x4xf32>, tensor<2x1xi32>, tensor<2x4xf32>) -> tensor<7x4xf32>
  return %0 : tensor<7x4xf32>
}

// Indices that are inside stay what they are, and what they write stays.
// CHECK-LABEL: func.func public @inside
// CHECK-NOT:     stablehlo.select
// CHECK:         "stablehlo.scatter"(%arg0, %{{.+}}, %arg1)
func.func public @inside(%table: tensor<7x4xf32>, %put: tensor<2x4xf32>) -> tensor<7x4xf32> {
  %index = stablehlo.constant dense<[[6], [0]]> : tensor<2x1xi32>
  %0 = "stablehlo.scatter"(%table, %index, %put) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [1], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>, unique_indices = true}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    stablehlo.return %b : tensor<f32>
  }) : (tensor<7x4xf32>, tensor<2x1xi32>, tensor<2x4xf32>) -> tensor<7x4xf32>
  return %0 : tensor<7x4xf32>
}

// No index of 8 bits is behind the operand.
// CHECK-LABEL: func.func public @narrow
// CHECK:         [[WIDE:%.+]] = stablehlo.convert %arg1 : (tensor<3x1xi8>) -> tensor<3x1xi32>
// CHECK:         [[BEHIND:%.+]] = stablehlo.constant dense<200> : tensor<3x1xi32>
// CHECK:         stablehlo.select {{%.+}}, [[BEHIND]], [[WIDE]]
func.func public @narrow(%x: tensor<200xf32>, %i: tensor<3x1xi8>, %u: tensor<3xf32>) -> tensor<200xf32> {
  %r = "stablehlo.scatter"(%x, %i, %u) <{indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], index_vector_dim = 1>, unique_indices = false}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    stablehlo.return %b : tensor<f32>
  }) : (tensor<200xf32>, tensor<3x1xi8>, tensor<3xf32>) -> tensor<200xf32>
  return %r : tensor<200xf32>
}
