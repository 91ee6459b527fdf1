// RUN: %sonew-opt --pass gather-shifts:elements=16 %s | FileCheck %s

// Row r of the result is row r + 1 of the argument, and the last row the first one a column on: in memory the element
// after the first row's own, so 159 elements back. What comes after the last column is filled in.
// CHECK-LABEL: func.func public @step
// CHECK-NOT:     stablehlo.concatenate
// CHECK:         [[ROW:%.+]] = stablehlo.iota dim = 0
// CHECK-NEXT:    [[COLUMN:%.+]] = stablehlo.iota dim = 1
// CHECK:         [[NEXT:%.+]] = stablehlo.add [[ROW]], {{.*}} : tensor<40x4xi32>
// CHECK:         [[OUTSIDE:%.+]] = stablehlo.compare  GE, [[NEXT]],
// CHECK:         [[HERE:%.+]] = stablehlo.add {{.*}}, [[COLUMN]]
// CHECK:         [[BACK:%.+]] = stablehlo.add [[HERE]],
// CHECK-NEXT:    [[INDEX:%.+]] = stablehlo.select [[OUTSIDE]], [[BACK]], [[HERE]]
// CHECK-NEXT:    [[FLAT:%.+]] = stablehlo.reshape %arg0 : (tensor<40x4xf32>) -> tensor<160xf32>
// CHECK:         [[READ:%.+]] = "stablehlo.gather"([[FLAT]],
// CHECK:         [[EDGE:%.+]] = stablehlo.compare  EQ, [[COLUMN]],
// CHECK-NEXT:    [[FILLED:%.+]] = stablehlo.and [[OUTSIDE]], [[EDGE]]
// CHECK:         [[RESULT:%.+]] = stablehlo.select [[FILLED]], {{.*}}, [[READ]]
// CHECK-NEXT:    return [[RESULT]]
func.func public @step(%x: tensor<40x4xf32>) -> tensor<40x4xf32> {
  %fill = stablehlo.constant dense<0.5> : tensor<1x1xf32>
  %0 = stablehlo.slice %x [1:40, 0:4] : (tensor<40x4xf32>) -> tensor<39x4xf32>
  %1 = stablehlo.slice %x [0:1, 1:4] : (tensor<40x4xf32>) -> tensor<1x3xf32>
  %2 = stablehlo.concatenate %1, %fill, dim = 1 : (tensor<1x3xf32>, tensor<1x1xf32>) -> tensor<1x4xf32>
  %3 = stablehlo.concatenate %0, %2, dim = 0 : (tensor<39x4xf32>, tensor<1x4xf32>) -> tensor<40x4xf32>
  return %3 : tensor<40x4xf32>
}
