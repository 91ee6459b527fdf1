// RUN: %sonew-opt --pass peel-shifts:elements=16 %s | FileCheck %s

// A column goes on with the next one's first row. The rows but the last: one operation on slices, with the shift and the
// helper's body in it. The last: the same on what follows in memory, which the last column has nothing of.
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
// CHECK:         [[LAST:%.+]] = stablehlo.slice %arg0 [11:12, 0:4]
// CHECK:         [[FLAT:%.+]] = stablehlo.reshape %arg0 : (tensor<12x4xf32>) -> tensor<48xf32>
// CHECK-NEXT:    [[AFTER:%.+]] = stablehlo.slice [[FLAT]] [1:5]
// CHECK-NEXT:    [[BELOW:%.+]] = stablehlo.reshape [[AFTER]] : (tensor<4xf32>) -> tensor<1x4xf32>
// CHECK:         [[IS:%.+]] = stablehlo.constant dense<{{\[\[}}true, true, true, false]]> : tensor<1x4xi1>
// CHECK-NEXT:    [[EDGE:%.+]] = "stablehlo.map"([[LAST]], [[BELOW]], [[IS]])
// CHECK:           stablehlo.select {{.*}} : tensor<i1>, tensor<f32>
// CHECK:         [[WHOLE:%.+]] = stablehlo.concatenate [[INTERIOR]], [[EDGE]], dim = 0
// CHECK-NEXT:    return [[WHOLE]] : tensor<12x4xf32>
func.func public @step(%x: tensor<12x4xf32> {sonew.name = "x", tf.aliasing_output = 0 : i32}, %least: tensor<f32>) -> tensor<12x4xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<1x1xf32>
  %0 = call @helper(%x, %least) : (tensor<12x4xf32>, tensor<f32>) -> tensor<12x4xf32>
  %1 = stablehlo.slice %0 [1:12, 0:4] : (tensor<12x4xf32>) -> tensor<11x4xf32>
  %2 = stablehlo.slice %0 [0:1, 1:4] : (tensor<12x4xf32>) -> tensor<1x3xf32>
  %3 = stablehlo.concatenate %2, %zero, dim = 1 : (tensor<1x3xf32>, tensor<1x1xf32>) -> tensor<1x4xf32>
  %4 = stablehlo.concatenate %1, %3, dim = 0 : (tensor<11x4xf32>, tensor<1x4xf32>) -> tensor<12x4xf32>
  %5 = stablehlo.add %0, %4 : tensor<12x4xf32>
  return %5 : tensor<12x4xf32>
}

func.func private @helper(%x: tensor<12x4xf32>, %least: tensor<f32>) -> tensor<12x4xf32> {
  %0 = stablehlo.broadcast_in_dim %least, dims = [] : (tensor<f32>) -> tensor<12x4xf32>
  %1 = stablehlo.maximum %x, %0 : tensor<12x4xf32>
  return %1 : tensor<12x4xf32>
}

// A reduction of all of it, in stages, takes each part from where it is computed. The rows before the first are filled.
// CHECK-LABEL: func.func public @sum
// CHECK:         [[EDGE:%.+]] = "stablehlo.map"
// CHECK:         [[INTERIOR:%.+]] = "stablehlo.map"({{.*}}) <{{.*}}> ({
// CHECK:         }) : (tensor<11x4xf32>, tensor<11x4xf32>) -> tensor<11x4xf32>
// CHECK-DAG:     [[ONE:%.+]] = stablehlo.reduce([[EDGE]] init: %{{.*}}) applies stablehlo.add across dimensions = [1] : (tensor<1x4xf32>, tensor<f32>) -> tensor<1xf32>
// CHECK-DAG:     [[ROWS:%.+]] = stablehlo.reduce([[INTERIOR]] init: %{{.*}}) applies stablehlo.add across dimensions = [1] : (tensor<11x4xf32>, tensor<f32>) -> tensor<11xf32>
// CHECK:         [[ALL:%.+]] = stablehlo.concatenate [[ONE]], [[ROWS]], dim = 0 : (tensor<1xf32>, tensor<11xf32>) -> tensor<12xf32>
// CHECK-NEXT:    [[SUM:%.+]] = stablehlo.reduce([[ALL]] init: %{{.*}}) applies stablehlo.add across dimensions = [0]
// CHECK-NEXT:    return [[SUM]]
func.func public @sum(%x: tensor<12x4xf32>) -> tensor<f32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %edge = stablehlo.constant dense<1.0> : tensor<1x4xf32>
  %0 = stablehlo.slice %x [0:11, 0:4] : (tensor<12x4xf32>) -> tensor<11x4xf32>
  %1 = stablehlo.concatenate %edge, %0, dim = 0 : (tensor<1x4xf32>, tensor<11x4xf32>) -> tensor<12x4xf32>
  %2 = stablehlo.multiply %x, %1 : tensor<12x4xf32>
  %3 = stablehlo.reduce(%2 init: %zero) applies stablehlo.add across dimensions = [1] : (tensor<12x4xf32>, tensor<f32>) -> tensor<12xf32>
  %4 = stablehlo.reduce(%3 init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<12xf32>, tensor<f32>) -> tensor<f32>
  return %4 : tensor<f32>
}

// Of a large one, pieces of the rows are added up element by element, and then neighbours side by side.
// CHECK-LABEL: func.func public @large
// CHECK:         "stablehlo.map"
// CHECK-COUNT-3:   stablehlo.add {{.*}} : tensor<f32>
// CHECK:           -> tensor<64x256xf32>
// CHECK:         stablehlo.reshape {{.*}} : (tensor<64x256xf32>) -> tensor<1x256x64xf32>
// CHECK-NEXT:    stablehlo.reduce({{.*}} across dimensions = [1] : (tensor<1x256x64xf32>, tensor<f32>) -> tensor<1x64xf32>
func.func public @large(%x: tensor<257x256xf32>) -> tensor<f32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %edge = stablehlo.constant dense<1.0> : tensor<1x256xf32>
  %0 = stablehlo.slice %x [0:256, 0:256] : (tensor<257x256xf32>) -> tensor<256x256xf32>
  %1 = stablehlo.concatenate %edge, %0, dim = 0 : (tensor<1x256xf32>, tensor<256x256xf32>) -> tensor<257x256xf32>
  %2 = stablehlo.multiply %x, %1 : tensor<257x256xf32>
  %3 = stablehlo.reduce(%2 init: %zero) applies stablehlo.add across dimensions = [0, 1] : (tensor<257x256xf32>, tensor<f32>) -> tensor<f32>
  return %3 : tensor<f32>
}

// Too small, without a shift, and rows that go round.
// CHECK-LABEL: func.func public @others
// CHECK-NOT:     map
// CHECK:         return
func.func public @others(%x: tensor<5x3xf32>, %y: tensor<12x4xf32>) -> (tensor<5x3xf32>, tensor<12x4xf32>, tensor<12x4xf32>) {
  %zero = stablehlo.constant dense<0.0> : tensor<1x3xf32>
  %0 = stablehlo.slice %x [1:5, 0:3] : (tensor<5x3xf32>) -> tensor<4x3xf32>
  %1 = stablehlo.concatenate %0, %zero, dim = 0 : (tensor<4x3xf32>, tensor<1x3xf32>) -> tensor<5x3xf32>
  %2 = stablehlo.add %x, %1 : tensor<5x3xf32>
  %3 = stablehlo.add %y, %y : tensor<12x4xf32>
  %4 = stablehlo.slice %y [1:12, 0:4] : (tensor<12x4xf32>) -> tensor<11x4xf32>
  %5 = stablehlo.slice %y [0:1, 0:4] : (tensor<12x4xf32>) -> tensor<1x4xf32>
  %6 = stablehlo.concatenate %4, %5, dim = 0 : (tensor<11x4xf32>, tensor<1x4xf32>) -> tensor<12x4xf32>
  %7 = stablehlo.add %y, %6 : tensor<12x4xf32>
  return %2, %3, %7 : tensor<5x3xf32>, tensor<12x4xf32>, tensor<12x4xf32>
}
