// RUN: %sonew-opt --pass fence-iotas %s | FileCheck %s

// The numbers of rows and columns come from behind a barrier where a sum depends on them, else they do not.
// CHECK-LABEL: func.func public @step
// CHECK:         [[ROW:%.+]] = stablehlo.iota dim = 0 : tensor<4x4xi32>
// CHECK-NEXT:    [[ROWS:%.+]] = stablehlo.optimization_barrier [[ROW]]
// CHECK-NEXT:    [[COLUMN:%.+]] = stablehlo.iota dim = 1 : tensor<4x4xi32>
// CHECK-NEXT:    [[COLUMNS:%.+]] = stablehlo.optimization_barrier [[COLUMN]]
// CHECK-NEXT:    stablehlo.compare  EQ, [[ROWS]], [[COLUMNS]]
// CHECK:         [[NUMBER:%.+]] = stablehlo.iota dim = 0 : tensor<4xi32>
// CHECK-NEXT:    stablehlo.convert [[NUMBER]]
func.func public @step(%x: tensor<4x4xf32>, %y: tensor<4xf32>) -> (tensor<f32>, tensor<4xf32>) {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = stablehlo.iota dim = 0 : tensor<4x4xi32>
  %1 = stablehlo.iota dim = 1 : tensor<4x4xi32>
  %2 = stablehlo.compare EQ, %0, %1 : (tensor<4x4xi32>, tensor<4x4xi32>) -> tensor<4x4xi1>
  %3 = stablehlo.convert %2 : (tensor<4x4xi1>) -> tensor<4x4xf32>
  %4 = stablehlo.subtract %x, %3 : tensor<4x4xf32>
  %5 = stablehlo.reduce(%4 init: %zero) applies stablehlo.add across dimensions = [0, 1] : (tensor<4x4xf32>, tensor<f32>) -> tensor<f32>
  %6 = stablehlo.iota dim = 0 : tensor<4xi32>
  %7 = stablehlo.convert %6 : (tensor<4xi32>) -> tensor<4xf32>
  %8 = stablehlo.add %7, %y : tensor<4xf32>
  return %5, %8 : tensor<f32>, tensor<4xf32>
}
