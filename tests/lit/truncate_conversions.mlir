// RUN: %sonew-opt --pass truncate-conversions %s | FileCheck %s

// CHECK-LABEL: func.func public @whole
// CHECK:         [[SIZE:%.+]] = stablehlo.abs %arg0
// CHECK:         [[WHOLE:%.+]] = stablehlo.floor [[SIZE]]
// CHECK:         [[SIGN:%.+]] = stablehlo.sign %arg0
// CHECK:         [[CUT:%.+]] = stablehlo.multiply [[SIGN]], [[WHOLE]]
// CHECK:         stablehlo.convert [[CUT]] : (tensor<6xf32>) -> tensor<6xi32>
func.func public @whole(%x: tensor<6xf32>) -> tensor<6xi32> {
  %0 = stablehlo.convert %x : (tensor<6xf32>) -> tensor<6xi32>
  return %0 : tensor<6xi32>
}

// CHECK-LABEL: func.func public @others
// CHECK-NOT:     stablehlo.floor
func.func public @others(%x: tensor<6xi32>, %y: tensor<6xf32>) -> (tensor<6xf32>, tensor<6xi1>) {
  %0 = stablehlo.convert %x : (tensor<6xi32>) -> tensor<6xf32>
  %1 = stablehlo.convert %y : (tensor<6xf32>) -> tensor<6xi1>
  return %0, %1 : tensor<6xf32>, tensor<6xi1>
}
