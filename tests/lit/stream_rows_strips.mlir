// RUN: %sonew-opt --pass stream-rows:elements=16,lanes=4,recompute=1 %s | FileCheck %s

// Two values are read in two rows each: four rows are computed at once, and each root five times and not eight.
// CHECK:         func.func @rows_0_40x4(
// CHECK:           [[HIGH:%.+]] = arith.minsi
// CHECK:           [[FOUR:%.+]] = arith.constant 4 : index
// CHECK-NEXT:      scf.for [[ROW:%.+]] = {{.+}} to [[HIGH]] step [[FOUR]] {
// CHECK:             scf.if
// CHECK:             scf.for
// CHECK-COUNT-5:       math.sqrt
// CHECK-NOT:           math.sqrt
// The next strip is the first to load four rows of each matrix.
// CHECK-COUNT-8:       memref.prefetch {{.+}}, read, locality<2>, data
// CHECK-NOT:           memref.prefetch
// CHECK:             }

// A strip that reads beyond the last row, or is not whole, is computed row by row.
// CHECK:             } else {
// CHECK:               [[AFTER:%.+]] = arith.minsi {{.+}}, [[HIGH]]
// CHECK-NEXT:          scf.for {{.+}} = [[ROW]] to [[AFTER]] step %c1 {
// CHECK:                 scf.for
// CHECK-COUNT-2:           math.sqrt
// CHECK-NOT:               math.sqrt
// CHECK:                   vector.maskedstore
func.func public @step(%x: tensor<40x4xf32> {sonew.name = "x"}, %y: tensor<40x4xf32> {sonew.name = "y"}) -> tensor<40x4xf32> {
  %fill = stablehlo.constant dense<0.0> : tensor<1x1xf32>
  %0 = stablehlo.sqrt %x : tensor<40x4xf32>
  %1 = stablehlo.slice %0 [1:40, 0:4] : (tensor<40x4xf32>) -> tensor<39x4xf32>
  %2 = stablehlo.slice %0 [0:1, 1:4] : (tensor<40x4xf32>) -> tensor<1x3xf32>
  %3 = stablehlo.concatenate %2, %fill, dim = 1 : (tensor<1x3xf32>, tensor<1x1xf32>) -> tensor<1x4xf32>
  %4 = stablehlo.concatenate %1, %3, dim = 0 : (tensor<39x4xf32>, tensor<1x4xf32>) -> tensor<40x4xf32>
  %5 = stablehlo.abs %y : tensor<40x4xf32>
  %6 = stablehlo.slice %5 [1:40, 0:4] : (tensor<40x4xf32>) -> tensor<39x4xf32>
  %7 = stablehlo.slice %5 [0:1, 1:4] : (tensor<40x4xf32>) -> tensor<1x3xf32>
  %8 = stablehlo.concatenate %7, %fill, dim = 1 : (tensor<1x3xf32>, tensor<1x1xf32>) -> tensor<1x4xf32>
  %9 = stablehlo.concatenate %6, %8, dim = 0 : (tensor<39x4xf32>, tensor<1x4xf32>) -> tensor<40x4xf32>
  %10 = stablehlo.add %0, %4 : tensor<40x4xf32>
  %11 = stablehlo.add %5, %9 : tensor<40x4xf32>
  %12 = stablehlo.multiply %10, %11 : tensor<40x4xf32>
  return %12 : tensor<40x4xf32>
}
