// RUN: %sonew-opt --pass stabilize-sorts %s | FileCheck %s

// CHECK-LABEL: func.func public @ranks
// CHECK:         ([[A:%.+]]: tensor<f32>, [[B:%.+]]: tensor<f32>, {{%.+}}: tensor<i32>, {{%.+}}: tensor<i32>)
// CHECK:         [[FIRST:%.+]] = stablehlo.compare LT, [[B]], [[A]], TOTALORDER
// CHECK:         [[STAY:%.+]] = stablehlo.not [[FIRST]]
// CHECK:         stablehlo.return [[STAY]]
func.func public @ranks(%x: tensor<4xf32>, %i: tensor<4xi32>) -> (tensor<4xf32>, tensor<4xi32>) {
  %0:2 = "stablehlo.sort"(%x, %i) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>, %c: tensor<i32>, %d: tensor<i32>):
    %first = stablehlo.compare LT, %a, %b, TOTALORDER : (tensor<f32>, tensor<f32>) -> tensor<i1>
    stablehlo.return %first : tensor<i1>
  }) : (tensor<4xf32>, tensor<4xi32>) -> (tensor<4xf32>, tensor<4xi32>)
  return %0#0, %0#1 : tensor<4xf32>, tensor<4xi32>
}
