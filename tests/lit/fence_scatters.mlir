// RUN: %sonew-opt --pass fence-scatters %s | FileCheck %s

// The updates come from behind a barrier, the operand and the indices do not.
// CHECK-LABEL: func.func public @step
// CHECK:         [[WIDE:%.+]] = stablehlo.convert %arg2 : (tensor<4xbf16>) -> tensor<4xf32>
// CHECK-NEXT:    [[APART:%.+]] = stablehlo.optimization_barrier [[WIDE]] : tensor<4xf32>
// CHECK-NEXT:    "stablehlo.scatter"(%arg0, %arg1, [[APART]])
func.func public @step(%zeros: tensor<10x4xf32>, %index: tensor<1xi32>, %added: tensor<4xbf16>) -> tensor<10x4xf32> {
  %0 = stablehlo.convert %added : (tensor<4xbf16>) -> tensor<4xf32>
  %1 = "stablehlo.scatter"(%zeros, %index, %0) <{scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = [0], inserted_window_dims = [0], scatter_dims_to_operand_dims = [0]>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %2 = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %2 : tensor<f32>
  }) : (tensor<10x4xf32>, tensor<1xi32>, tensor<4xf32>) -> tensor<10x4xf32>
  return %1 : tensor<10x4xf32>
}
