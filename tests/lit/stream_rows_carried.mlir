// RUN: %sonew-opt --pass stream-rows:elements=16,lanes=4 %s | FileCheck %s

// A value of four operations is read in the row before: of each row it is computed once, and left to the next.
// CHECK:         func.func @rows_0_40x4(
// CHECK:           [[LEFT:%.+]] = memref.alloca() : memref<4xf32>
// Of the row before the first, with what lies beyond the matrix, nothing else is computed.
// CHECK:           scf.for
// CHECK:             vector.maskedload
// CHECK:             math.sqrt
// CHECK:             vector.store {{.+}}, [[LEFT]]
// CHECK-NOT:         vector.maskedstore
// CHECK:           scf.for [[ROW:%.+]] = {{.+}} {
// CHECK:             scf.if
// CHECK:             scf.for
// CHECK:               math.sqrt
// CHECK:               [[BEFORE:%.+]] = vector.load [[LEFT]]
// CHECK-NOT:           math.sqrt
// CHECK:               vector.store {{.+}}, {{.+}} : memref<160xf32>
// CHECK:               vector.store {{.+}}, [[LEFT]]
// The first row computes the row before, too, since it is another column's last.
// CHECK:             } else {
// CHECK:             scf.for
// CHECK-COUNT-2:       math.sqrt
// CHECK:               vector.store {{.+}}, [[LEFT]]
func.func public @step(%x: tensor<40x4xf32> {sonew.name = "x"}) -> tensor<40x4xf32> {
  %fill = stablehlo.constant dense<0.0> : tensor<1x1xf32>
  %0 = stablehlo.multiply %x, %x : tensor<40x4xf32>
  %1 = stablehlo.add %0, %x : tensor<40x4xf32>
  %2 = stablehlo.sqrt %1 : tensor<40x4xf32>
  %3 = stablehlo.multiply %2, %x : tensor<40x4xf32>
  %4 = stablehlo.slice %3 [39:40, 0:3] : (tensor<40x4xf32>) -> tensor<1x3xf32>
  %5 = stablehlo.concatenate %fill, %4, dim = 1 : (tensor<1x1xf32>, tensor<1x3xf32>) -> tensor<1x4xf32>
  %6 = stablehlo.slice %3 [0:39, 0:4] : (tensor<40x4xf32>) -> tensor<39x4xf32>
  %7 = stablehlo.concatenate %5, %6, dim = 0 : (tensor<1x4xf32>, tensor<39x4xf32>) -> tensor<40x4xf32>
  %8 = stablehlo.add %3, %7 : tensor<40x4xf32>
  return %8 : tensor<40x4xf32>
}
