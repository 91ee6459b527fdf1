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

// Left apart: one that needs the other's result, one of another shape, one that reads nothing in common, and one that
// only a reduction reads.
// CHECK-LABEL: func.func public @others
// CHECK-NOT:     linalg
// CHECK:         return
func.func public @others(%x: tensor<4xf32>, %y: tensor<4xf32>, %z: tensor<3xf32>) -> (tensor<4xf32>, tensor<4xf32>, tensor<3xf32>, tensor<4xf32>, tensor<f32>) {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = "stablehlo.map"(%x) <{dimensions = array<i64: 0>}> ({
  ^bb0(%a: tensor<f32>):
    %c = stablehlo.tanh %a : tensor<f32>
    stablehlo.return %c : tensor<f32>
  }) : (tensor<4xf32>) -> tensor<4xf32>
  %1 = "stablehlo.map"(%x, %0) <{dimensions = array<i64: 0>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %c = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %c : tensor<f32>
  }) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %2 = stablehlo.slice %x [1:4] : (tensor<4xf32>) -> tensor<3xf32>
  %3 = "stablehlo.map"(%2) <{dimensions = array<i64: 0>}> ({
  ^bb0(%a: tensor<f32>):
    %c = stablehlo.tanh %a : tensor<f32>
    stablehlo.return %c : tensor<f32>
  }) : (tensor<3xf32>) -> tensor<3xf32>
  %4 = "stablehlo.map"(%y) <{dimensions = array<i64: 0>}> ({
  ^bb0(%a: tensor<f32>):
    %c = stablehlo.tanh %a : tensor<f32>
    stablehlo.return %c : tensor<f32>
  }) : (tensor<4xf32>) -> tensor<4xf32>
  %5 = "stablehlo.map"(%x) <{dimensions = array<i64: 0>}> ({
  ^bb0(%a: tensor<f32>):
    %c = stablehlo.multiply %a, %a : tensor<f32>
    stablehlo.return %c : tensor<f32>
  }) : (tensor<4xf32>) -> tensor<4xf32>
  %6 = stablehlo.reduce(%5 init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<4xf32>, tensor<f32>) -> tensor<f32>
  return %0, %1, %3, %4, %6 : tensor<4xf32>, tensor<4xf32>, tensor<3xf32>, tensor<4xf32>, tensor<f32>
}
