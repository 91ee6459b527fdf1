// RUN: %sonew-opt --pass forward-rows %s | FileCheck %s

// Each row is read as it was written; the index that begins too late is that of the last row, and nothing else is left.
// CHECK-LABEL: func.func public @rows
// CHECK-NOT:     dynamic
// CHECK:         return %arg1, %arg2 :
func.func public @rows(%s0: tensor<2x8xf32>, %a: tensor<1x8xf32>, %b: tensor<1x8xf32>) -> (tensor<1x8xf32>, tensor<1x8xf32>) {
  %i0 = stablehlo.constant dense<0> : tensor<i32>
  %one = stablehlo.constant dense<1> : tensor<i32>
  %i1 = stablehlo.add %i0, %one : tensor<i32>
  %s1 = stablehlo.dynamic_update_slice %s0, %a, %i0, %i0 : (tensor<2x8xf32>, tensor<1x8xf32>, tensor<i32>, tensor<i32>) -> tensor<2x8xf32>
  %s2 = stablehlo.dynamic_update_slice %s1, %b, %i1, %i0 : (tensor<2x8xf32>, tensor<1x8xf32>, tensor<i32>, tensor<i32>) -> tensor<2x8xf32>
  %i3 = stablehlo.constant dense<3> : tensor<i32>
  %less = stablehlo.compare LT, %i1, %i0 : (tensor<i32>, tensor<i32>) -> tensor<i1>
  %chosen = stablehlo.select %less, %i1, %i0 : tensor<i1>, tensor<i32>
  %0 = stablehlo.dynamic_slice %s2, %chosen, %i0, sizes = [1, 8] : (tensor<2x8xf32>, tensor<i32>, tensor<i32>) -> tensor<1x8xf32>
  %1 = stablehlo.dynamic_slice %s2, %i3, %i0, sizes = [1, 8] : (tensor<2x8xf32>, tensor<i32>, tensor<i32>) -> tensor<1x8xf32>
  return %0, %1 : tensor<1x8xf32>, tensor<1x8xf32>
}

// Parts of two rows, a row that no update wrote, a row after an update at an unknown place, and one at an unknown place.
// CHECK-LABEL: func.func public @others
// CHECK-COUNT-2: stablehlo.dynamic_update_slice
// CHECK-COUNT-4: stablehlo.dynamic_slice
func.func public @others(%s0: tensor<4x8xf32>, %a: tensor<1x8xf32>, %n: tensor<i32>) -> (tensor<2x8xf32>, tensor<1x8xf32>, tensor<1x8xf32>, tensor<1x8xf32>) {
  %i0 = stablehlo.constant dense<0> : tensor<i32>
  %i1 = stablehlo.constant dense<1> : tensor<i32>
  %s1 = stablehlo.dynamic_update_slice %s0, %a, %i0, %i0 : (tensor<4x8xf32>, tensor<1x8xf32>, tensor<i32>, tensor<i32>) -> tensor<4x8xf32>
  %s2 = stablehlo.dynamic_update_slice %s1, %a, %n, %i0 : (tensor<4x8xf32>, tensor<1x8xf32>, tensor<i32>, tensor<i32>) -> tensor<4x8xf32>
  %0 = stablehlo.dynamic_slice %s1, %i0, %i0, sizes = [2, 8] : (tensor<4x8xf32>, tensor<i32>, tensor<i32>) -> tensor<2x8xf32>
  %1 = stablehlo.dynamic_slice %s1, %i1, %i0, sizes = [1, 8] : (tensor<4x8xf32>, tensor<i32>, tensor<i32>) -> tensor<1x8xf32>
  %2 = stablehlo.dynamic_slice %s2, %i0, %i0, sizes = [1, 8] : (tensor<4x8xf32>, tensor<i32>, tensor<i32>) -> tensor<1x8xf32>
  %3 = stablehlo.dynamic_slice %s1, %n, %i0, sizes = [1, 8] : (tensor<4x8xf32>, tensor<i32>, tensor<i32>) -> tensor<1x8xf32>
  return %0, %1, %2, %3 : tensor<2x8xf32>, tensor<1x8xf32>, tensor<1x8xf32>, tensor<1x8xf32>
}

// An unsigned number below zero is a large one: the row is the last, not the first.
// CHECK-LABEL: func.func public @wrapped
// CHECK:         stablehlo.dynamic_slice
func.func public @wrapped(%s: tensor<4x8xf32>, %a: tensor<1x8xf32>, %b: tensor<1x8xf32>) -> tensor<1x8xf32> {
  %z = stablehlo.constant dense<0> : tensor<ui32>
  %o = stablehlo.constant dense<1> : tensor<ui32>
  %t = stablehlo.constant dense<3> : tensor<ui32>
  %s1 = stablehlo.dynamic_update_slice %s, %a, %z, %z : (tensor<4x8xf32>, tensor<1x8xf32>, tensor<ui32>, tensor<ui32>) -> tensor<4x8xf32>
  %s2 = stablehlo.dynamic_update_slice %s1, %b, %t, %z : (tensor<4x8xf32>, tensor<1x8xf32>, tensor<ui32>, tensor<ui32>) -> tensor<4x8xf32>
  %m = stablehlo.subtract %z, %o : tensor<ui32>
  %r = stablehlo.dynamic_slice %s2, %m, %z, sizes = [1, 8] : (tensor<4x8xf32>, tensor<ui32>, tensor<ui32>) -> tensor<1x8xf32>
  return %r : tensor<1x8xf32>
}
