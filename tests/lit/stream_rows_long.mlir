// RUN: %sonew-opt --pass stream-rows:elements=16,lanes=4,recompute=32 %s | FileCheck %s

// Each operation waits for the one before it: four rows are computed at once, operation by operation.
// CHECK:         func.func @rows_0_40x8(
// CHECK:           scf.if
// CHECK:             scf.for
// CHECK:               math.sqrt
// CHECK-NOT:           arith.mulf
// CHECK:               math.sqrt
// CHECK-NOT:           arith.mulf
// CHECK:               math.sqrt
// CHECK-NOT:           arith.mulf
// CHECK:               math.sqrt
// CHECK-NEXT:          arith.mulf
// CHECK-NEXT:          arith.mulf
// CHECK-NEXT:          arith.mulf
// CHECK-NEXT:          arith.mulf
// CHECK-NEXT:          math.sqrt
func.func public @step(%x: tensor<40x8xf32> {sonew.name = "x"}) -> tensor<40x8xf32> {
  %fill = stablehlo.constant dense<0.0> : tensor<1x8xf32>
  %0 = stablehlo.sqrt %x : tensor<40x8xf32>
  %1 = stablehlo.multiply %0, %0 : tensor<40x8xf32>
  %2 = stablehlo.sqrt %1 : tensor<40x8xf32>
  %3 = stablehlo.multiply %2, %2 : tensor<40x8xf32>
  %4 = stablehlo.sqrt %3 : tensor<40x8xf32>
  %5 = stablehlo.multiply %4, %4 : tensor<40x8xf32>
  %6 = stablehlo.sqrt %5 : tensor<40x8xf32>
  %7 = stablehlo.multiply %6, %6 : tensor<40x8xf32>
  %8 = stablehlo.sqrt %7 : tensor<40x8xf32>
  %9 = stablehlo.multiply %8, %8 : tensor<40x8xf32>
  %10 = stablehlo.sqrt %9 : tensor<40x8xf32>
  %11 = stablehlo.multiply %10, %10 : tensor<40x8xf32>
  %12 = stablehlo.sqrt %11 : tensor<40x8xf32>
  %13 = stablehlo.multiply %12, %12 : tensor<40x8xf32>
  %14 = stablehlo.sqrt %13 : tensor<40x8xf32>
  %15 = stablehlo.multiply %14, %14 : tensor<40x8xf32>
  %16 = stablehlo.sqrt %15 : tensor<40x8xf32>
  %17 = stablehlo.multiply %16, %16 : tensor<40x8xf32>
  %18 = stablehlo.sqrt %17 : tensor<40x8xf32>
  %19 = stablehlo.multiply %18, %18 : tensor<40x8xf32>
  %20 = stablehlo.sqrt %19 : tensor<40x8xf32>
  %21 = stablehlo.multiply %20, %20 : tensor<40x8xf32>
  %22 = stablehlo.sqrt %21 : tensor<40x8xf32>
  %23 = stablehlo.multiply %22, %22 : tensor<40x8xf32>
  %24 = stablehlo.sqrt %23 : tensor<40x8xf32>
  %25 = stablehlo.multiply %24, %24 : tensor<40x8xf32>
  %26 = stablehlo.sqrt %25 : tensor<40x8xf32>
  %27 = stablehlo.multiply %26, %26 : tensor<40x8xf32>
  %28 = stablehlo.sqrt %27 : tensor<40x8xf32>
  %29 = stablehlo.multiply %28, %28 : tensor<40x8xf32>
  %30 = stablehlo.sqrt %29 : tensor<40x8xf32>
  %31 = stablehlo.multiply %30, %30 : tensor<40x8xf32>
  %32 = stablehlo.sqrt %31 : tensor<40x8xf32>
  %33 = stablehlo.multiply %32, %32 : tensor<40x8xf32>
  %34 = stablehlo.sqrt %33 : tensor<40x8xf32>
  %35 = stablehlo.multiply %34, %34 : tensor<40x8xf32>
  %36 = stablehlo.sqrt %35 : tensor<40x8xf32>
  %37 = stablehlo.multiply %36, %36 : tensor<40x8xf32>
  %38 = stablehlo.sqrt %37 : tensor<40x8xf32>
  %39 = stablehlo.multiply %38, %38 : tensor<40x8xf32>
  %head = stablehlo.slice %39 [0:39, 0:8] : (tensor<40x8xf32>) -> tensor<39x8xf32>
  %shifted = stablehlo.concatenate %fill, %head, dim = 0 : (tensor<1x8xf32>, tensor<39x8xf32>) -> tensor<40x8xf32>
  %40 = stablehlo.add %x, %shifted : tensor<40x8xf32>
  return %40 : tensor<40x8xf32>
}
