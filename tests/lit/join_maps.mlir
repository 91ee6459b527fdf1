// RUN: %sonew-opt --pass join-maps %s | FileCheck %s

// Both read %x: one operation, with the slice that the second needs made before it, and the scalar it reads from within.
// CHECK-LABEL: func.func public @step
// CHECK:         [[Z:%.+]] = stablehlo.slice %arg2 [1:5, 0:3]
// CHECK-DAG:     [[A:%.+]] = tensor.empty() : tensor<4x3xf32>
// CHECK-DAG:     [[B:%.+]] = tensor.empty() : tensor<4x3xi1>
// CHECK:         [[BOTH:%.+]]:2 = "linalg.generic"(%arg0, %arg1, [[Z]], {{.+}}, {{.+}}) ({
// CHECK-NEXT:    ^bb0([[S:%.+]]: f32, [[T:%.+]]: f32, [[U:%.+]]: f32, %{{.+}}: f32, %{{.+}}: i1):
// CHECK-DAG:       [[X:%.+]] = tensor.from_elements [[S]] : tensor<f32>
// CHECK-DAG:       [[Y:%.+]] = tensor.from_elements [[T]] : tensor<f32>
// CHECK-DAG:       [[W:%.+]] = tensor.from_elements [[U]] : tensor<f32>
// CHECK:           [[SUM:%.+]] = stablehlo.add [[X]], [[Y]] : tensor<f32>
// CHECK:           [[SCALED:%.+]] = stablehlo.multiply [[X]], %arg3 : tensor<f32>
// CHECK:           [[LESS:%.+]] = stablehlo.compare LT, [[SCALED]], [[W]]
// CHECK-DAG:       [[FIRST:%.+]] = tensor.extract [[SUM]][] : tensor<f32>
// CHECK-DAG:       [[SECOND:%.+]] = tensor.extract [[LESS]][] : tensor<i1>
// CHECK:           "linalg.yield"([[FIRST]], [[SECOND]]) : (f32, i1) -> ()
// CHECK:         }) {indexing_maps = [#map, #map, #map, #map, #map], iterator_types = [#linalg.iterator_type<parallel>, #linalg.iterator_type<parallel>], operandSegmentSizes = array<i32: 3, 2>}
// CHECK:         [[TWICE:%.+]] = stablehlo.add [[BOTH]]#0, [[BOTH]]#0
// CHECK:         return [[TWICE]], [[BOTH]]#1
func.func public @step(%x: tensor<4x3xf32>, %y: tensor<4x3xf32>, %z: tensor<6x3xf32>, %scale: tensor<f32>) -> (tensor<4x3xf32>, tensor<4x3xi1>) {
  %0 = "stablehlo.map"(%x, %y) <{dimensions = array<i64: 0, 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %c = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %c : tensor<f32>
  }) : (tensor<4x3xf32>, tensor<4x3xf32>) -> tensor<4x3xf32>
  %1 = stablehlo.add %0, %0 : tensor<4x3xf32>
  %2 = stablehlo.slice %z [1:5, 0:3] : (tensor<6x3xf32>) -> tensor<4x3xf32>
  %3 = "stablehlo.map"(%x, %2) <{dimensions = array<i64: 0, 1>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %c = stablehlo.multiply %a, %scale : tensor<f32>
    %d = stablehlo.compare LT, %c, %b : (tensor<f32>, tensor<f32>) -> tensor<i1>
    stablehlo.return %d : tensor<i1>
  }) : (tensor<4x3xf32>, tensor<4x3xf32>) -> tensor<4x3xi1>
  return %1, %3 : tensor<4x3xf32>, tensor<4x3xi1>
}

// Left apart: one of another shape, one that reads nothing in common, and one that only a reduction reads.
// CHECK-LABEL: func.func public @others
// CHECK-NOT:     linalg
// CHECK:         return
func.func public @others(%x: tensor<4xf32>, %y: tensor<4xf32>, %z: tensor<3xf32>) -> (tensor<4xf32>, tensor<3xf32>, tensor<4xf32>, tensor<f32>) {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = "stablehlo.map"(%x) <{dimensions = array<i64: 0>}> ({
  ^bb0(%a: tensor<f32>):
    %c = stablehlo.tanh %a : tensor<f32>
    stablehlo.return %c : tensor<f32>
  }) : (tensor<4xf32>) -> tensor<4xf32>
  %1 = stablehlo.slice %x [1:4] : (tensor<4xf32>) -> tensor<3xf32>
  %2 = "stablehlo.map"(%1) <{dimensions = array<i64: 0>}> ({
  ^bb0(%a: tensor<f32>):
    %c = stablehlo.tanh %a : tensor<f32>
    stablehlo.return %c : tensor<f32>
  }) : (tensor<3xf32>) -> tensor<3xf32>
  %3 = "stablehlo.map"(%y) <{dimensions = array<i64: 0>}> ({
  ^bb0(%a: tensor<f32>):
    %c = stablehlo.tanh %a : tensor<f32>
    stablehlo.return %c : tensor<f32>
  }) : (tensor<4xf32>) -> tensor<4xf32>
  %4 = "stablehlo.map"(%x) <{dimensions = array<i64: 0>}> ({
  ^bb0(%a: tensor<f32>):
    %c = stablehlo.multiply %a, %a : tensor<f32>
    stablehlo.return %c : tensor<f32>
  }) : (tensor<4xf32>) -> tensor<4xf32>
  %5 = stablehlo.reduce(%4 init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<4xf32>, tensor<f32>) -> tensor<f32>
  return %0, %2, %3, %5 : tensor<4xf32>, tensor<3xf32>, tensor<4xf32>, tensor<f32>
}

// The second reads the rows that the first writes of a tensor: it takes them as they are computed. The third reads other
// rows of it, which must be there first.
// CHECK-LABEL: func.func public @chained
// CHECK:         [[BOTH:%.+]]:2 = "linalg.generic"(%arg0, {{.+}}, {{.+}}) ({
// CHECK-NEXT:    ^bb0([[S:%.+]]: f32, %{{.+}}: f32, %{{.+}}: f32):
// CHECK-NEXT:      [[X:%.+]] = tensor.from_elements [[S]] : tensor<f32>
// CHECK-NEXT:      [[TANH:%.+]] = stablehlo.tanh [[X]] : tensor<f32>
// CHECK-NEXT:      [[SUM:%.+]] = stablehlo.add [[X]], [[TANH]] : tensor<f32>
// CHECK-DAG:       [[FIRST:%.+]] = tensor.extract [[TANH]][] : tensor<f32>
// CHECK-DAG:       [[SECOND:%.+]] = tensor.extract [[SUM]][] : tensor<f32>
// CHECK:           "linalg.yield"([[FIRST]], [[SECOND]]) : (f32, f32) -> ()
// CHECK:         [[WHOLE:%.+]] = stablehlo.concatenate %arg1, [[BOTH]]#0, dim = 0
// CHECK-NEXT:    [[OTHER:%.+]] = stablehlo.slice [[WHOLE]] [0:4]
// CHECK-NEXT:    [[THIRD:%.+]] = "stablehlo.map"(%arg0, [[OTHER]])
// CHECK:         return [[WHOLE]], [[BOTH]]#1, [[THIRD]]
func.func public @chained(%x: tensor<4xf32>, %edge: tensor<1xf32>) -> (tensor<5xf32>, tensor<4xf32>, tensor<4xf32>) {
  %0 = "stablehlo.map"(%x) <{dimensions = array<i64: 0>}> ({
  ^bb0(%a: tensor<f32>):
    %c = stablehlo.tanh %a : tensor<f32>
    stablehlo.return %c : tensor<f32>
  }) : (tensor<4xf32>) -> tensor<4xf32>
  %1 = stablehlo.concatenate %edge, %0, dim = 0 : (tensor<1xf32>, tensor<4xf32>) -> tensor<5xf32>
  %2 = stablehlo.slice %1 [1:5] : (tensor<5xf32>) -> tensor<4xf32>
  %3 = "stablehlo.map"(%x, %2) <{dimensions = array<i64: 0>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %c = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %c : tensor<f32>
  }) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %4 = stablehlo.slice %1 [0:4] : (tensor<5xf32>) -> tensor<4xf32>
  %5 = "stablehlo.map"(%x, %4) <{dimensions = array<i64: 0>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %c = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %c : tensor<f32>
  }) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return %1, %3, %5 : tensor<5xf32>, tensor<4xf32>, tensor<4xf32>
}
