// RUN: %sonew-opt --pass peel-shifts:elements=16 %s | FileCheck %s

// The rows between the edges: one operation on slices, with the shift and the helper's body in it. The rows at the
// edges: the program on the first and the last rows.
// CHECK-LABEL: func.func public @step
// CHECK-SAME:    %arg0: tensor<12x4xf32> {sonew.name = "x"}
// CHECK-DAG:     [[HERE:%.+]] = stablehlo.slice %arg0 [0:11, 0:4]
// CHECK-DAG:     [[NEXT:%.+]] = stablehlo.slice %arg0 [1:12, 0:4]
// CHECK:         [[INTERIOR:%.+]] = "stablehlo.map"([[HERE]], [[NEXT]]) <{dimensions = array<i64: 0, 1>}> ({
// CHECK-NEXT:    ^bb0([[A:%.+]]: tensor<f32>, [[B:%.+]]: tensor<f32>):
// CHECK-NEXT:      [[C:%.+]] = stablehlo.maximum [[A]], %arg1 : tensor<f32>
// CHECK-NEXT:      [[D:%.+]] = stablehlo.maximum [[B]], %arg1 : tensor<f32>
// CHECK-NEXT:      [[E:%.+]] = stablehlo.add [[C]], [[D]] : tensor<f32>
// CHECK-NEXT:      stablehlo.return [[E]] : tensor<f32>
// CHECK:         [[TOP:%.+]] = stablehlo.slice %arg0 [0:2, 0:4]
// CHECK-NEXT:    [[BOTTOM:%.+]] = stablehlo.slice %arg0 [10:12, 0:4]
// CHECK-NEXT:    stablehlo.concatenate [[TOP]], [[BOTTOM]], dim = 0
// CHECK:         [[FEW:%.+]] = stablehlo.add {{.*}} : tensor<4x4xf32>
// CHECK:         [[EDGE:%.+]] = stablehlo.slice [[FEW]] [3:4, 0:4]
// CHECK-NEXT:    [[WHOLE:%.+]] = stablehlo.concatenate [[INTERIOR]], [[EDGE]], dim = 0
// CHECK-NEXT:    return [[WHOLE]] : tensor<12x4xf32>
func.func public @step(%x: tensor<12x4xf32> {sonew.name = "x", tf.aliasing_output = 0 : i32}, %least: tensor<f32>) -> tensor<12x4xf32> {
  %0 = call @helper(%x, %least) : (tensor<12x4xf32>, tensor<f32>) -> tensor<12x4xf32>
  %1 = stablehlo.slice %0 [1:12, 0:4] : (tensor<12x4xf32>) -> tensor<11x4xf32>
  %2 = stablehlo.slice %0 [0:1, 0:4] : (tensor<12x4xf32>) -> tensor<1x4xf32>
  %3 = stablehlo.concatenate %1, %2, dim = 0 : (tensor<11x4xf32>, tensor<1x4xf32>) -> tensor<12x4xf32>
  %4 = stablehlo.add %0, %3 : tensor<12x4xf32>
  return %4 : tensor<12x4xf32>
}

func.func private @helper(%x: tensor<12x4xf32>, %least: tensor<f32>) -> tensor<12x4xf32> {
  %0 = stablehlo.broadcast_in_dim %least, dims = [] : (tensor<f32>) -> tensor<12x4xf32>
  %1 = stablehlo.maximum %x, %0 : tensor<12x4xf32>
  return %1 : tensor<12x4xf32>
}

// A reduction of the rows takes them from where they are computed.
// CHECK-LABEL: func.func public @sums
// CHECK:         [[INTERIOR:%.+]] = "stablehlo.map"
// CHECK-DAG:     [[ROWS:%.+]] = stablehlo.reduce([[INTERIOR]] init: %{{.*}}) applies stablehlo.add across dimensions = [1] : (tensor<11x4xf32>, tensor<f32>) -> tensor<11xf32>
// CHECK:         [[ALL:%.+]] = stablehlo.concatenate {{.*}}, [[ROWS]], dim = 0 : (tensor<1xf32>, tensor<11xf32>) -> tensor<12xf32>
// CHECK-NEXT:    return [[ALL]]
func.func public @sums(%x: tensor<12x4xf32>) -> tensor<12xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %edge = stablehlo.constant dense<1.0> : tensor<1x4xf32>
  %0 = stablehlo.slice %x [0:11, 0:4] : (tensor<12x4xf32>) -> tensor<11x4xf32>
  %1 = stablehlo.concatenate %edge, %0, dim = 0 : (tensor<1x4xf32>, tensor<11x4xf32>) -> tensor<12x4xf32>
  %2 = stablehlo.multiply %x, %1 : tensor<12x4xf32>
  %3 = stablehlo.reduce(%2 init: %zero) applies stablehlo.add across dimensions = [1] : (tensor<12x4xf32>, tensor<f32>) -> tensor<12xf32>
  return %3 : tensor<12xf32>
}

// Too small, and without a shift.
// CHECK-LABEL: func.func public @others
// CHECK-NOT:     map
// CHECK:         return
func.func public @others(%x: tensor<5x3xf32>, %y: tensor<12x4xf32>) -> (tensor<5x3xf32>, tensor<12x4xf32>) {
  %0 = stablehlo.slice %x [1:5, 0:3] : (tensor<5x3xf32>) -> tensor<4x3xf32>
  %1 = stablehlo.slice %x [0:1, 0:3] : (tensor<5x3xf32>) -> tensor<1x3xf32>
  %2 = stablehlo.concatenate %0, %1, dim = 0 : (tensor<4x3xf32>, tensor<1x3xf32>) -> tensor<5x3xf32>
  %3 = stablehlo.add %x, %2 : tensor<5x3xf32>
  %4 = stablehlo.add %y, %y : tensor<12x4xf32>
  return %3, %4 : tensor<5x3xf32>, tensor<12x4xf32>
}
