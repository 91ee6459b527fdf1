// RUN: %sonew-opt --pass stream-rows:lanes=8,native_bf16=1 %s | FileCheck %s

// The function of a product and a bias, which is read as it is stored, is one kernel: in float32 for the gradient, and
// rounded for the next product.
// CHECK-LABEL:   func.func @rows_0_128x136(%arg0: !stream.binding, %arg1: !stream.binding, %arg2: !stream.binding, %arg3: !stream.binding)
// CHECK-DAG:       [[Z:%.+]] = "stream.binding.subspan"(%arg0, {{.*}} memref<17408xf32>
// CHECK-DAG:       [[B:%.+]] = "stream.binding.subspan"(%arg1, {{.*}} memref<136xi16>
// CHECK:           scf.for [[ROW:%.+]] =
// CHECK:             scf.for [[COLUMN:%.+]] =
// CHECK:               vector.load [[Z]][{{%.+}}]
// CHECK:               vector.load [[B]][[[COLUMN]]]
// CHECK:               math.tanh
// CHECK-NOT:           math.tanh
// CHECK:               llvm.fptrunc
// CHECK:               vector.store
// CHECK:               vector.store

// A later kernel reads it, and computes only what is cheap again.
// CHECK-LABEL:   func.func @rows_1_128x136(
// CHECK-NOT:       math.tanh
// CHECK:           func.func public @step

// CHECK:           [[Z:%.+]] = stablehlo.dot_general %arg0, %arg1
// CHECK:           [[H:%.+]]:2 = "flow.dispatch"([[Z]], %arg2) {entry_points = [@rows::@rows_0_128x136]{{.*}} : (tensor<128x136xf32>, tensor<136xbf16>) -> (tensor<128x136xf32>, tensor<128x136xbf16>)
// CHECK:           [[G:%.+]] = stablehlo.dot_general [[H]]#1, %arg3
// CHECK:           [[D:%.+]] = "flow.dispatch"([[H]]#0, [[G]]) {entry_points = [@rows::@rows_1_128x136]{{.*}} -> tensor<128x136xbf16>
// CHECK:           return [[D]]
func.func public @step(%x: tensor<128x136xbf16> {sonew.name = "x"}, %w: tensor<136x136xbf16> {sonew.name = "w"},
                       %b: tensor<136xbf16> {sonew.name = "b"}, %v: tensor<136x136xbf16> {sonew.name = "v"}) -> tensor<128x136xbf16> {
  %one = stablehlo.constant dense<1.0> : tensor<f32>
  %wide = stablehlo.convert %b : (tensor<136xbf16>) -> tensor<136xf32>
  %row = stablehlo.broadcast_in_dim %wide, dims = [1] : (tensor<136xf32>) -> tensor<1x136xf32>
  %rows = stablehlo.broadcast_in_dim %row, dims = [0, 1] : (tensor<1x136xf32>) -> tensor<128x136xf32>
  %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<128x136xbf16>, tensor<136x136xbf16>) -> tensor<128x136xf32>
  %1 = stablehlo.add %0, %rows : tensor<128x136xf32>
  %2 = stablehlo.tanh %1 : tensor<128x136xf32>
  %3 = stablehlo.convert %2 : (tensor<128x136xf32>) -> tensor<128x136xbf16>
  %ones = stablehlo.broadcast_in_dim %one, dims = [] : (tensor<f32>) -> tensor<128x136xf32>
  %4 = stablehlo.subtract %ones, %2 : tensor<128x136xf32>
  %5 = stablehlo.dot_general %3, %v, contracting_dims = [1] x [0] : (tensor<128x136xbf16>, tensor<136x136xbf16>) -> tensor<128x136xf32>
  %6 = stablehlo.multiply %5, %4 : tensor<128x136xf32>
  %7 = stablehlo.multiply %6, %2 : tensor<128x136xf32>
  %8 = stablehlo.convert %7 : (tensor<128x136xf32>) -> tensor<128x136xbf16>
  return %8 : tensor<128x136xbf16>
}

// What IREE computes where it is read, such as a transposed matrix, would have to be written for a kernel. A function
// without a bias is as fast in IREE's code. So are constants, integers, and what
// is rounded back to the numbers that were widened.
// CHECK-LABEL:   func.func public @left
// CHECK-NOT:       flow.dispatch
func.func public @left(%x: tensor<136x128xf32> {sonew.name = "x"}, %b: tensor<136xf32> {sonew.name = "b"},
                       %i: tensor<128x136xui32> {sonew.name = "i"},
                       %h: tensor<128x136xbf16> {sonew.name = "h"}) -> (tensor<128x136xf32>, tensor<136x128xf32>, tensor<128x136xbf16>, tensor<128x136xbf16>, tensor<128x136xbf16>) {
  %rows = stablehlo.broadcast_in_dim %b, dims = [1] : (tensor<136xf32>) -> tensor<128x136xf32>
  %0 = stablehlo.transpose %x, dims = [1, 0] : (tensor<136x128xf32>) -> tensor<128x136xf32>
  %1 = stablehlo.add %0, %rows : tensor<128x136xf32>
  %2 = stablehlo.tanh %1 : tensor<128x136xf32>
  %3 = stablehlo.tanh %x : tensor<136x128xf32>
  %4 = stablehlo.convert %h : (tensor<128x136xbf16>) -> tensor<128x136xf32>
  %5 = stablehlo.convert %4 : (tensor<128x136xf32>) -> tensor<128x136xbf16>
  %6 = stablehlo.constant dense<0.5> : tensor<128x136xf32>
  %7 = stablehlo.convert %6 : (tensor<128x136xf32>) -> tensor<128x136xbf16>
  %8 = stablehlo.convert %i : (tensor<128x136xui32>) -> tensor<128x136xf32>
  %9 = stablehlo.convert %8 : (tensor<128x136xf32>) -> tensor<128x136xbf16>
  return %2, %3, %5, %7, %9 : tensor<128x136xf32>, tensor<136x128xf32>, tensor<128x136xbf16>, tensor<128x136xbf16>, tensor<128x136xbf16>
}
