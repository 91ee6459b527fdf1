// RUN: %sonew-opt --pass legalize-chlo %s | FileCheck %s

// CHECK-NOT: chlo.

// CHECK-LABEL: func.func @square
// CHECK:         stablehlo.multiply %arg0, %arg0
func.func @square(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = chlo.square %x : tensor<4xf32> -> tensor<4xf32>
  return %0 : tensor<4xf32>
}

// CHECK-LABEL: func.func @top_k
// CHECK:         stablehlo.sort
func.func @top_k(%x: tensor<16xf32>) -> (tensor<3xf32>, tensor<3xi32>) {
  %values, %indices = chlo.top_k(%x, k = 3) : tensor<16xf32> -> (tensor<3xf32>, tensor<3xi32>)
  return %values, %indices : tensor<3xf32>, tensor<3xi32>
}

// CHECK-LABEL: func.func @erf_inv
// CHECK:         stablehlo.log_plus_one
func.func @erf_inv(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = chlo.erf_inv %x : tensor<4xf32> -> tensor<4xf32>
  return %0 : tensor<4xf32>
}

// CHECK-LABEL: func.func @composite
// CHECK-NEXT:    [[TWICE:%.+]] = call @twice(%arg0)
// CHECK-NEXT:    return [[TWICE]]
func.func @composite(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = stablehlo.composite "my.twice" %x {decomposition = @twice} : (tensor<4xf32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}

// CHECK-LABEL: func.func private @twice
// CHECK:         stablehlo.add %arg0, %arg0
func.func private @twice(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = stablehlo.add %x, %x : tensor<4xf32>
  return %0 : tensor<4xf32>
}
