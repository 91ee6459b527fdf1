// RUN: %sonew-opt --pass reduce-angles %s | FileCheck %s

// CHECK-LABEL: func.func public @sine
// CHECK-NOT:     stablehlo.sine
// CHECK:         [[SIZE:%.+]] = stablehlo.abs %arg0
// CHECK:         [[K:%.+]] = stablehlo.floor {{%.+}} : tensor<6xf32>
// CHECK:         stablehlo.multiply [[K]], {{%.+}} : tensor<6xf32>
// CHECK:         [[BITS:%.+]] = stablehlo.bitcast_convert [[SIZE]] : (tensor<6xf32>) -> tensor<6xui32>
// CHECK:         stablehlo.multiply {{%.+}} : tensor<6xui32>
// CHECK-NOT:     i64
// CHECK:         [[NEAR:%.+]] = stablehlo.compare LT, [[SIZE]], {{%.+}}, FLOAT
// CHECK:         stablehlo.select [[NEAR]], {{%.+}}, {{%.+}} : tensor<6xi1>, tensor<6xf32>
// CHECK:         stablehlo.select {{%.+}}, %arg0, {{%.+}} : tensor<6xi1>, tensor<6xf32>
func.func public @sine(%x: tensor<6xf32>) -> tensor<6xf32> {
  %0 = stablehlo.sine %x : tensor<6xf32>
  return %0 : tensor<6xf32>
}

// CHECK-LABEL: func.func public @half
// CHECK-NOT:     stablehlo.cosine
// CHECK:         stablehlo.convert %arg0 : (tensor<bf16>) -> tensor<f32>
// CHECK:         stablehlo.convert {{%.+}} : (tensor<f32>) -> tensor<bf16>
func.func public @half(%x: tensor<bf16>) -> tensor<bf16> {
  %0 = stablehlo.cosine %x : tensor<bf16>
  return %0 : tensor<bf16>
}

// CHECK-LABEL: func.func public @tangent
// CHECK-NOT:     stablehlo.tan
// CHECK:         stablehlo.divide
func.func public @tangent(%x: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %0 = stablehlo.tan %x : tensor<2x3xf32>
  return %0 : tensor<2x3xf32>
}

// CHECK-LABEL: func.func public @wide
// CHECK:         stablehlo.sine %arg0 : tensor<6xf64>
func.func public @wide(%x: tensor<6xf64>) -> tensor<6xf64> {
  %0 = stablehlo.sine %x : tensor<6xf64>
  return %0 : tensor<6xf64>
}
