// RUN: %sonew-opt --pass bound-kernels:operands=3 %s | FileCheck %s

// The third sum would read four tensors, and reads a copy of the second. Constants need no tensor.
// CHECK-LABEL: func.func public @sums
// CHECK:         [[FIRST:%.+]] = stablehlo.add %arg0, %arg1
// CHECK:         [[SECOND:%.+]] = stablehlo.add [[FIRST]], %arg2
// CHECK-NEXT:    [[COPY:%.+]] = "flow.tensor.clone"([[SECOND]]) : (tensor<4xf32>) -> tensor<4xf32>
// CHECK:         [[THIRD:%.+]] = stablehlo.add [[COPY]], %arg3
// CHECK:         [[LAST:%.+]] = stablehlo.multiply [[THIRD]], %cst
// CHECK:         return [[LAST]]
func.func public @sums(%a: tensor<4xf32>, %b: tensor<4xf32>, %c: tensor<4xf32>, %d: tensor<4xf32>) -> tensor<4xf32> {
  %two = stablehlo.constant dense<2.0> : tensor<4xf32>
  %0 = stablehlo.add %a, %b : tensor<4xf32>
  %1 = stablehlo.add %0, %c : tensor<4xf32>
  %2 = stablehlo.add %1, %d : tensor<4xf32>
  %3 = stablehlo.multiply %2, %two : tensor<4xf32>
  return %3 : tensor<4xf32>
}

// Two numbers that are computed read two tensors and are written: each becomes a copy, in whichever concatenation.
// CHECK-LABEL: func.func public @numbers
// CHECK:         [[SINE:%.+]] = stablehlo.sine %arg0
// CHECK-NEXT:    [[ONE:%.+]] = "flow.tensor.clone"([[SINE]]) : (tensor<f32>) -> tensor<f32>
// CHECK-NEXT:    [[MOVED:%.+]] = stablehlo.reshape [[ONE]]
// CHECK:         [[COSINE:%.+]] = stablehlo.cosine %arg1
// CHECK-NEXT:    [[OTHER:%.+]] = "flow.tensor.clone"([[COSINE]]) : (tensor<1xf32>) -> tensor<1xf32>
// CHECK-NEXT:    [[INNER:%.+]] = stablehlo.concatenate [[OTHER]], %arg1
// CHECK-NEXT:    stablehlo.concatenate [[MOVED]], [[INNER]]
func.func public @numbers(%a: tensor<f32>, %b: tensor<1xf32>) -> tensor<3xf32> {
  %0 = stablehlo.sine %a : tensor<f32>
  %1 = stablehlo.reshape %0 : (tensor<f32>) -> tensor<1xf32>
  %2 = stablehlo.cosine %b : tensor<1xf32>
  %3 = stablehlo.concatenate %2, %b, dim = 0 : (tensor<1xf32>, tensor<1xf32>) -> tensor<2xf32>
  %4 = stablehlo.concatenate %1, %3, dim = 0 : (tensor<1xf32>, tensor<2xf32>) -> tensor<3xf32>
  return %4 : tensor<3xf32>
}

// CHECK-LABEL: func.func public @few
// CHECK-NOT:     clone
// CHECK:         return
func.func public @few(%a: tensor<4xf32>, %b: tensor<4xf32>, %c: tensor<4xf32>) -> tensor<4xf32> {
  %0 = stablehlo.add %a, %b : tensor<4xf32>
  %1 = stablehlo.add %0, %c : tensor<4xf32>
  %2 = stablehlo.multiply %1, %a : tensor<4xf32>
  return %2 : tensor<4xf32>
}
