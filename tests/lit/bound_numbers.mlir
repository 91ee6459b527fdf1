// RUN: %sonew-opt --pass bound-numbers:operands=4 %s | FileCheck %s

// A kernel of all three numbers would read three tensors and write three, so it begins behind the first number.
// CHECK-LABEL: func.func public @steps
// CHECK:         [[FIRST:%.+]] = stablehlo.add %arg0, %cst
// CHECK-NEXT:    [[COPY:%.+]] = "flow.tensor.clone"([[FIRST]]) : (tensor<f32>) -> tensor<f32>
// CHECK-NEXT:    [[SECOND:%.+]] = stablehlo.add %arg1, %cst
// CHECK-NEXT:    [[THIRD:%.+]] = stablehlo.add %arg2, %cst
// CHECK-NEXT:    stablehlo.broadcast_in_dim [[COPY]]
// CHECK:         return [[COPY]], [[SECOND]], [[THIRD]]
func.func public @steps(%a: tensor<f32>, %b: tensor<f32>, %c: tensor<f32>)
    -> (tensor<f32>, tensor<f32>, tensor<f32>, tensor<12xf32>) {
  %one = stablehlo.constant dense<1.0> : tensor<f32>
  %0 = stablehlo.add %a, %one : tensor<f32>
  %1 = stablehlo.add %b, %one : tensor<f32>
  %2 = stablehlo.add %c, %one : tensor<f32>
  %3 = stablehlo.broadcast_in_dim %0, dims = [] : (tensor<f32>) -> tensor<4xf32>
  %4 = stablehlo.broadcast_in_dim %1, dims = [] : (tensor<f32>) -> tensor<4xf32>
  %5 = stablehlo.broadcast_in_dim %2, dims = [] : (tensor<f32>) -> tensor<4xf32>
  %6 = stablehlo.concatenate %3, %4, %5, dim = 0 : (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<12xf32>
  return %0, %1, %2, %6 : tensor<f32>, tensor<f32>, tensor<f32>, tensor<12xf32>
}

// A number that is only returned leaves its kernel at once.
// CHECK-LABEL: func.func public @returned
// CHECK-NOT:     clone
// CHECK:         return
func.func public @returned(%a: tensor<f32>, %b: tensor<f32>, %c: tensor<f32>) -> (tensor<f32>, tensor<f32>, tensor<f32>) {
  %0 = stablehlo.sine %a : tensor<f32>
  %1 = stablehlo.sine %b : tensor<f32>
  %2 = stablehlo.sine %c : tensor<f32>
  return %0, %1, %2 : tensor<f32>, tensor<f32>, tensor<f32>
}

// What only numbers read is not written: one kernel computes all of this from three tensors.
// CHECK-LABEL: func.func public @one
// CHECK-NOT:     clone
// CHECK:         return
func.func public @one(%a: tensor<f32>, %b: tensor<f32>, %c: tensor<f32>) -> tensor<f32> {
  %0 = stablehlo.sine %a : tensor<f32>
  %1 = stablehlo.sine %b : tensor<f32>
  %2 = stablehlo.sine %c : tensor<f32>
  %3 = stablehlo.add %0, %1 : tensor<f32>
  %4 = stablehlo.add %3, %2 : tensor<f32>
  return %4 : tensor<f32>
}

// IREE begins a kernel where a sum between the numbers reads one of them.
// CHECK-LABEL: func.func public @parted
// CHECK-NOT:     clone
// CHECK:         return
func.func public @parted(%a: tensor<f32>, %b: tensor<f32>, %c: tensor<f32>, %x: tensor<4xf32>)
    -> (tensor<f32>, tensor<f32>, tensor<f32>, tensor<f32>) {
  %0 = stablehlo.sine %a : tensor<f32>
  %1 = stablehlo.broadcast_in_dim %0, dims = [] : (tensor<f32>) -> tensor<4xf32>
  %2 = stablehlo.multiply %x, %1 : tensor<4xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %3 = stablehlo.reduce(%2 init: %zero) applies stablehlo.add across dimensions = [0]
    : (tensor<4xf32>, tensor<f32>) -> tensor<f32>
  %4 = stablehlo.sine %b : tensor<f32>
  %5 = stablehlo.sine %c : tensor<f32>
  return %0, %3, %4, %5 : tensor<f32>, tensor<f32>, tensor<f32>, tensor<f32>
}
