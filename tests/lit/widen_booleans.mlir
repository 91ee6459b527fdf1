// RUN: %sonew-opt --pass widen-booleans %s | FileCheck %s

// What is moved is converted before the first move and back after the last.
// CHECK-LABEL: func.func public @shifted
// CHECK:         [[IS:%.+]] = stablehlo.compare GT
// CHECK-NEXT:    [[WIDE:%.+]] = stablehlo.convert [[IS]] : (tensor<4xi1>) -> tensor<4xi32>
// CHECK-NEXT:    [[REST:%.+]] = stablehlo.slice [[WIDE]] [1:4] : (tensor<4xi32>) -> tensor<3xi32>
// CHECK:         [[MOVED:%.+]] = stablehlo.concatenate [[REST]], {{.*}} -> tensor<4xi32>
// CHECK:         [[BACK:%.+]] = stablehlo.compare NE, [[MOVED]],
// CHECK-NEXT:    stablehlo.select [[BACK]], %arg0, %arg1
func.func public @shifted(%x: tensor<4xf32>, %y: tensor<4xf32>) -> tensor<4xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<4xf32>
  %no = stablehlo.constant dense<false> : tensor<1xi1>
  %0 = stablehlo.compare GT, %x, %zero, FLOAT : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xi1>
  %1 = stablehlo.slice %0 [1:4] : (tensor<4xi1>) -> tensor<3xi1>
  %2 = stablehlo.concatenate %1, %no, dim = 0 : (tensor<3xi1>, tensor<1xi1>) -> tensor<4xi1>
  %3 = stablehlo.select %2, %x, %y : tensor<4xi1>, tensor<4xf32>
  return %3 : tensor<4xf32>
}

// What is read twice comes from behind a barrier, as integers.
// CHECK-LABEL: func.func public @twice
// CHECK:         [[WIDE:%.+]] = stablehlo.convert {{.*}} : (tensor<4xi1>) -> tensor<4xi32>
// CHECK-NEXT:    [[APART:%.+]] = stablehlo.optimization_barrier [[WIDE]] : tensor<4xi32>
// CHECK:         [[BACK:%.+]] = stablehlo.compare NE, [[APART]],
// CHECK-NEXT:    stablehlo.select [[BACK]], %arg0, %arg1
// CHECK-NEXT:    stablehlo.select [[BACK]], %arg1, %arg0
func.func public @twice(%x: tensor<4xf32>, %y: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %0 = stablehlo.compare GT, %x, %y, FLOAT : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xi1>
  %1 = stablehlo.select %0, %x, %y : tensor<4xi1>, tensor<4xf32>
  %2 = stablehlo.select %0, %y, %x : tensor<4xi1>, tensor<4xf32>
  return %1, %2 : tensor<4xf32>, tensor<4xf32>
}
