// RUN: %sonew-opt --pass stream-rows:elements=16,lanes=4 %s | FileCheck %s

// Two results of 16 bits, one of which the other is computed from, are one kernel's without any shift. It reads the
// weight as it is stored, though a product reads it widened, and overwrites the donated momentum.
// CHECK:         func.func @rows_0_40x4(%arg0: !stream.binding, %arg1: !stream.binding, %arg2: !stream.binding, %arg3: !stream.binding) {
// CHECK-DAG:       [[G:%.+]] = "stream.binding.subspan"(%arg0, {{.*}} memref<160xf32>
// CHECK-DAG:       [[M:%.+]] = "stream.binding.subspan"(%arg1, {{.*}} memref<160xi16>
// CHECK-DAG:       [[W:%.+]] = "stream.binding.subspan"(%arg2, {{.*}} memref<160xi16>
// CHECK:           scf.for
// CHECK-NOT:       func.func
// CHECK:           vector.store
// CHECK:           vector.store

// CHECK-LABEL:   func.func public @step
// CHECK:           [[WIDE:%.+]] = stablehlo.convert %arg0 : (tensor<40x4xbf16>) -> tensor<40x4xf32>
// CHECK:           [[GRADIENT:%.+]] = stablehlo.dot_general %arg2, [[WIDE]],
// CHECK:           [[NEW:%.+]]:2 = "flow.dispatch"([[GRADIENT]], %arg1, %arg0) {entry_points = [@rows::@rows_0_40x4]{{.*}}, tied_operands = [1 : index, -1 : index]}
// CHECK-NEXT:      return [[NEW]]#1, [[NEW]]#0
func.func public @step(%w: tensor<40x4xbf16> {sonew.name = "w"},
                       %m: tensor<40x4xbf16> {sonew.name = "m", tf.aliasing_output = 1 : i32},
                       %x: tensor<40x40xf32> {sonew.name = "x"}) -> (tensor<40x4xbf16>, tensor<40x4xbf16>) {
  %0 = stablehlo.convert %w : (tensor<40x4xbf16>) -> tensor<40x4xf32>
  %1 = stablehlo.dot_general %x, %0, contracting_dims = [1] x [0] : (tensor<40x40xf32>, tensor<40x4xf32>) -> tensor<40x4xf32>
  %2 = stablehlo.convert %m : (tensor<40x4xbf16>) -> tensor<40x4xf32>
  %3 = stablehlo.add %1, %2 : tensor<40x4xf32>
  %4 = stablehlo.convert %3 : (tensor<40x4xf32>) -> tensor<40x4xbf16>
  %5 = stablehlo.convert %4 : (tensor<40x4xbf16>) -> tensor<40x4xf32>
  %6 = stablehlo.subtract %0, %5 : tensor<40x4xf32>
  %7 = stablehlo.convert %6 : (tensor<40x4xf32>) -> tensor<40x4xbf16>
  return %7, %4 : tensor<40x4xbf16>, tensor<40x4xbf16>
}
