// RUN: %sonew-opt --pass widen-operands %s | FileCheck %s

// CHECK-LABEL: func.func public @booleans
// CHECK:         [[WIDE:%.+]] = stablehlo.select %arg0, %cst, %cst_0 : tensor<6x7xi1>, tensor<6x7xf32>
// CHECK:         stablehlo.dot_general [[WIDE]], %arg1
func.func public @booleans(%x: tensor<6x7xi1>, %w: tensor<7x4xf32>) -> tensor<6x4xf32> {
  %0 = stablehlo.convert %x : (tensor<6x7xi1>) -> tensor<6x7xf32>
  %1 = stablehlo.dot_general %0, %w, contracting_dims = [1] x [0] : (tensor<6x7xf32>, tensor<7x4xf32>) -> tensor<6x4xf32>
  return %1 : tensor<6x4xf32>
}

// CHECK-LABEL: func.func public @bytes
// CHECK:         [[WIDE:%.+]] = stablehlo.convert %arg0 : (tensor<6x7xui8>) -> tensor<6x7xui32>
// CHECK:         stablehlo.convert [[WIDE]] : (tensor<6x7xui32>) -> tensor<6x7xf32>
func.func public @bytes(%x: tensor<6x7xui8>) -> tensor<6x7xf32> {
  %0 = stablehlo.convert %x : (tensor<6x7xui8>) -> tensor<6x7xf32>
  return %0 : tensor<6x7xf32>
}

// Signed integers are widened as they are, and those that are not narrower.
// CHECK-LABEL: func.func public @others
// CHECK-COUNT-2: stablehlo.convert
// CHECK-NOT:     stablehlo.convert
func.func public @others(%x: tensor<6xi8>, %y: tensor<6xui32>) -> (tensor<6xf32>, tensor<6xf32>) {
  %0 = stablehlo.convert %x : (tensor<6xi8>) -> tensor<6xf32>
  %1 = stablehlo.convert %y : (tensor<6xui32>) -> tensor<6xf32>
  return %0, %1 : tensor<6xf32>, tensor<6xf32>
}
