// RUN: %sonew-opt --pass expand-logarithms %s | FileCheck %s

// CHECK-LABEL: func.func public @single
// CHECK-NOT:     log_plus_one
// CHECK:         [[SIZE:%.+]] = stablehlo.abs %arg0 : tensor<6xf32>
// CHECK:         [[SMALL:%.+]] = stablehlo.compare LT, [[SIZE]], {{%.+}}, FLOAT
// CHECK:         [[BELOW:%.+]] = stablehlo.add %arg0, {{%.+}} : tensor<6xf32>
// CHECK:         [[S:%.+]] = stablehlo.divide %arg0, [[BELOW]] : tensor<6xf32>
// CHECK:         [[SUM:%.+]] = stablehlo.add %arg0, {{%.+}} : tensor<6xf32>
// CHECK:         [[LOG:%.+]] = stablehlo.log [[SUM]] : tensor<6xf32>
// CHECK:         stablehlo.select [[SMALL]], {{%.+}}, [[LOG]]
func.func public @single(%x: tensor<6xf32>) -> tensor<6xf32> {
  %0 = stablehlo.log_plus_one %x : tensor<6xf32>
  return %0 : tensor<6xf32>
}

// CHECK-LABEL: func.func public @half
// CHECK:         stablehlo.convert %arg0 : (tensor<f16>) -> tensor<f32>
// CHECK:         stablehlo.convert {{%.+}} : (tensor<f32>) -> tensor<f16>
func.func public @half(%x: tensor<f16>) -> tensor<f16> {
  %0 = stablehlo.log_plus_one %x : tensor<f16>
  return %0 : tensor<f16>
}

// CHECK-LABEL: func.func public @wide
// CHECK:         stablehlo.log_plus_one %arg0 : tensor<6xf64>
func.func public @wide(%x: tensor<6xf64>) -> tensor<6xf64> {
  %0 = stablehlo.log_plus_one %x : tensor<6xf64>
  return %0 : tensor<6xf64>
}
