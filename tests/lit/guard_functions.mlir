// RUN: %sonew-opt --pass guard-functions %s | FileCheck %s

// CHECK-LABEL: func.func public @angle
// CHECK:         [[RISE:%.+]] = stablehlo.abs %arg0
// CHECK:         [[SPAN:%.+]] = stablehlo.abs %arg1
// CHECK:         [[SAFE_RISE:%.+]] = stablehlo.select {{%.+}}, {{%.+}}, [[RISE]]
// CHECK:         [[SAFE_SPAN:%.+]] = stablehlo.select {{%.+}}, {{%.+}}, [[SPAN]]
// CHECK:         [[ANGLE:%.+]] = stablehlo.atan2 [[SAFE_RISE]], [[SAFE_SPAN]]
// CHECK:         [[BEHIND:%.+]] = stablehlo.subtract {{%.+}}, [[ANGLE]]
// CHECK:         [[TURNED:%.+]] = stablehlo.select {{%.+}}, [[BEHIND]], [[ANGLE]]
// CHECK:         [[BELOW:%.+]] = stablehlo.negate [[TURNED]]
// CHECK:         stablehlo.select {{%.+}}, [[BELOW]], [[TURNED]]
func.func public @angle(%y: tensor<6xf32>, %x: tensor<6xf32>) -> tensor<6xf32> {
  %0 = stablehlo.atan2 %y, %x : tensor<6xf32>
  return %0 : tensor<6xf32>
}

// CHECK-LABEL: func.func public @root
// CHECK:         [[SIZE:%.+]] = stablehlo.abs %arg0
// CHECK:         [[FINITE:%.+]] = stablehlo.compare LT, [[SIZE]], {{%.+}}, FLOAT
// CHECK:         [[ROOT:%.+]] = stablehlo.cbrt %arg0
// CHECK:         stablehlo.select [[FINITE]], [[ROOT]], %arg0
func.func public @root(%x: tensor<6xf32>) -> tensor<6xf32> {
  %0 = stablehlo.cbrt %x : tensor<6xf32>
  return %0 : tensor<6xf32>
}
