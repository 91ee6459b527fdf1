// RUN: %sonew-opt --pass split-reductions:limit=16 %s | FileCheck %s

// CHECK-LABEL: func.func @small
// CHECK:         stablehlo.reduce({{.*}}) applies stablehlo.add across dimensions = [0] : (tensor<16xf32>, tensor<f32>) -> tensor<f32>
// CHECK-NEXT:    return
func.func @small(%x: tensor<16xf32>) -> tensor<f32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [0]
    : (tensor<16xf32>, tensor<f32>) -> tensor<f32>
  return %0 : tensor<f32>
}

// Several dimensions: the innermost first.
// CHECK-LABEL: func.func @whole
// CHECK-NOT:     reshape
// CHECK:         %0 = stablehlo.reduce(%arg0 init: %cst) applies stablehlo.maximum across dimensions = [1] : (tensor<10x12xf32>, tensor<f32>) -> tensor<10xf32>
// CHECK-NEXT:    %1 = stablehlo.reduce(%0 init: %cst) applies stablehlo.maximum across dimensions = [0] : (tensor<10xf32>, tensor<f32>) -> tensor<f32>
// CHECK-NEXT:    return %1
func.func @whole(%x: tensor<10x12xf32>) -> tensor<f32> {
  %lowest = stablehlo.constant dense<0xFF800000> : tensor<f32>
  %0 = stablehlo.reduce(%x init: %lowest) applies stablehlo.maximum across dimensions = [0, 1]
    : (tensor<10x12xf32>, tensor<f32>) -> tensor<f32>
  return %0 : tensor<f32>
}

// A long dimension is cut, here with others beside it.
// CHECK-LABEL: func.func @long
// CHECK:         %0 = stablehlo.reshape %arg0 : (tensor<3x60x2xf32>) -> tensor<3x{{6x10|10x6}}x2xf32>
// CHECK-NEXT:    %1 = stablehlo.reduce(%0 init: %cst) applies stablehlo.add across dimensions = [2]
// CHECK-NEXT:    %2 = stablehlo.reduce(%1 init: %cst) applies stablehlo.add across dimensions = [1] : (tensor<3x{{[0-9]+}}x2xf32>, tensor<f32>) -> tensor<3x2xf32>
// CHECK-NEXT:    return %2
func.func @long(%x: tensor<3x60x2xf32>) -> tensor<3x2xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [1]
    : (tensor<3x60x2xf32>, tensor<f32>) -> tensor<3x2xf32>
  return %0 : tensor<3x2xf32>
}

// A prime length is padded with the initial value.
// CHECK-LABEL: func.func @prime
// CHECK:         %0 = stablehlo.pad %arg0, %c, low = [0], high = [1], interior = [0] : (tensor<59xi1>, tensor<i1>) -> tensor<60xi1>
// CHECK-NEXT:    stablehlo.reshape %0
// CHECK-COUNT-2: stablehlo.reduce({{.*}} init: %c) applies stablehlo.and
// CHECK-NEXT:    return
func.func @prime(%x: tensor<59xi1>) -> tensor<i1> {
  %true = stablehlo.constant dense<true> : tensor<i1>
  %0 = stablehlo.reduce(%x init: %true) applies stablehlo.and across dimensions = [0]
    : (tensor<59xi1>, tensor<i1>) -> tensor<i1>
  return %0 : tensor<i1>
}

// Adjacent dimensions that would make poor stages as they are become one.
// CHECK-LABEL: func.func @uneven
// CHECK:         %0 = stablehlo.reshape %arg0 : (tensor<100x2xi32>) -> tensor<200xi32>
// CHECK-COUNT-2: stablehlo.reduce
// CHECK-NEXT:    return
func.func @uneven(%x: tensor<100x2xi32>) -> tensor<i32> {
  %zero = stablehlo.constant dense<0> : tensor<i32>
  %0 = stablehlo.reduce(%x init: %zero) applies stablehlo.or across dimensions = [0, 1]
    : (tensor<100x2xi32>, tensor<i32>) -> tensor<i32>
  return %0 : tensor<i32>
}

// Several operands (here the largest value and its index) keep their body, within a loop as well.
// CHECK-LABEL: func.func @several
// CHECK:         stablehlo.while
// CHECK:         stablehlo.reduce({{.*}} init: %cst), ({{.*}} init: %c) across dimensions = [1]
// CHECK:           stablehlo.select
// CHECK:         stablehlo.reduce({{.*}} init: %cst), ({{.*}} init: %c) across dimensions = [0] : (tensor<10xf32>, tensor<10xi32>, tensor<f32>, tensor<i32>) -> (tensor<f32>, tensor<i32>)
// CHECK:           stablehlo.select
func.func @several(%x: tensor<10x10xf32>, %more: tensor<i1>) -> tensor<i1> {
  %index = stablehlo.iota dim = 0 : tensor<10x10xi32>
  %lowest = stablehlo.constant dense<0xFF800000> : tensor<f32>
  %first = stablehlo.constant dense<0> : tensor<i32>
  %0 = stablehlo.while(%again = %more) : tensor<i1>
  cond {
    stablehlo.return %again : tensor<i1>
  } do {
    %1:2 = stablehlo.reduce(%x init: %lowest), (%index init: %first) across dimensions = [0, 1]
      : (tensor<10x10xf32>, tensor<10x10xi32>, tensor<f32>, tensor<i32>) -> (tensor<f32>, tensor<i32>)
      reducer(%a: tensor<f32>, %b: tensor<f32>) (%i: tensor<i32>, %j: tensor<i32>) {
        %2 = stablehlo.compare GE, %a, %b : (tensor<f32>, tensor<f32>) -> tensor<i1>
        %3 = stablehlo.select %2, %a, %b : tensor<i1>, tensor<f32>
        %4 = stablehlo.select %2, %i, %j : tensor<i1>, tensor<i32>
        stablehlo.return %3, %4 : tensor<f32>, tensor<i32>
      }
    %5 = stablehlo.convert %1#1 : (tensor<i32>) -> tensor<i1>
    stablehlo.return %5 : tensor<i1>
  }
  return %0 : tensor<i1>
}

// A size that is not known is left alone.
// CHECK-LABEL: func.func @dynamic
// CHECK:         stablehlo.reduce(%arg0 init: %cst) applies stablehlo.add across dimensions = [0] : (tensor<?xf32>, tensor<f32>) -> tensor<f32>
func.func @dynamic(%x: tensor<?xf32>) -> tensor<f32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [0]
    : (tensor<?xf32>, tensor<f32>) -> tensor<f32>
  return %0 : tensor<f32>
}
