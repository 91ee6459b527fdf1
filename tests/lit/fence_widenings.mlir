// RUN: %sonew-opt --pass fence-widenings %s | FileCheck %s

// A bias of 16 bits is widened apart from the matrix that it is added to.
// CHECK-LABEL: func.func public @bias
// CHECK-NEXT:    [[WIDE:%.+]] = stablehlo.convert %arg1 : (tensor<4xbf16>) -> tensor<4xf32>
// CHECK-NEXT:    [[COPY:%.+]] = "flow.tensor.clone"([[WIDE]]) : (tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    stablehlo.broadcast_in_dim [[COPY]], dims = [1] : (tensor<4xf32>) -> tensor<8x4xf32>
func.func public @bias(%x: tensor<8x4xf32>, %b: tensor<4xbf16>) -> tensor<8x4xf32> {
  %0 = stablehlo.convert %b : (tensor<4xbf16>) -> tensor<4xf32>
  %1 = stablehlo.broadcast_in_dim %0, dims = [1] : (tensor<4xf32>) -> tensor<8x4xf32>
  %2 = stablehlo.add %x, %1 : tensor<8x4xf32>
  return %2 : tensor<8x4xf32>
}

// A scalar, an integer, and a vector that is float32 already need no copy.
// CHECK-LABEL: func.func public @others
// CHECK-NOT:     flow.tensor.clone
// CHECK:         return
func.func public @others(%s: tensor<bf16>, %i: tensor<4xi8>, %b: tensor<4xf32>)
    -> (tensor<4xf32>, tensor<8x4xf32>, tensor<8x4xf32>) {
  %0 = stablehlo.convert %s : (tensor<bf16>) -> tensor<f32>
  %1 = stablehlo.broadcast_in_dim %0, dims = [] : (tensor<f32>) -> tensor<4xf32>
  %2 = stablehlo.convert %i : (tensor<4xi8>) -> tensor<4xf32>
  %3 = stablehlo.broadcast_in_dim %2, dims = [1] : (tensor<4xf32>) -> tensor<8x4xf32>
  %4 = stablehlo.broadcast_in_dim %b, dims = [1] : (tensor<4xf32>) -> tensor<8x4xf32>
  return %1, %3, %4 : tensor<4xf32>, tensor<8x4xf32>, tensor<8x4xf32>
}
