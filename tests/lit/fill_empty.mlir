// RUN: %sonew-opt --pass fill-empty %s | FileCheck %s

// CHECK-LABEL: func.func public @product
// CHECK:         [[ZERO:%.+]] = stablehlo.constant dense<0.000000e+00> : tensor<8x4xf32>
// CHECK:         return [[ZERO]]
func.func public @product(%x: tensor<8x0xf32>, %y: tensor<0x4xf32>) -> tensor<8x4xf32> {
  %0 = stablehlo.dot_general %x, %y, contracting_dims = [1] x [0] : (tensor<8x0xf32>, tensor<0x4xf32>) -> tensor<8x4xf32>
  return %0 : tensor<8x4xf32>
}

// CHECK-LABEL: func.func public @other
// CHECK:         stablehlo.dot_general
func.func public @other(%x: tensor<8x2xf32>, %y: tensor<2x4xf32>) -> tensor<8x4xf32> {
  %0 = stablehlo.dot_general %x, %y, contracting_dims = [1] x [0] : (tensor<8x2xf32>, tensor<2x4xf32>) -> tensor<8x4xf32>
  return %0 : tensor<8x4xf32>
}
