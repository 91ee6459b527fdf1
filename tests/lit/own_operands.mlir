// RUN: %sonew-opt --pass own-operands %s | FileCheck %s

// Both operands of a sort are copied, with a number each that only the program's run tells: an argument's square has no
// bit of two.
// CHECK-LABEL: func.func public @sorts
// CHECK-SAME:    ([[X:%.+]]: tensor<4xf32> {tf.aliasing_output = 0 : i32}, [[N:%.+]]: tensor<i32>)
// CHECK:         [[SQUARE:%.+]] = stablehlo.multiply [[N]], [[N]]
// CHECK:         [[ZERO:%.+]] = stablehlo.and [[SQUARE]]
// CHECK:         [[IOTA:%.+]] = stablehlo.iota
// CHECK:         [[ONE:%.+]] = stablehlo.constant dense<1> : tensor<i32>
// CHECK:         [[BELOW:%.+]] = stablehlo.compare LT, [[ZERO]], [[ONE]]
// CHECK:         [[WHERE:%.+]] = stablehlo.broadcast_in_dim [[BELOW]]
// CHECK:         [[NOT:%.+]] = stablehlo.negate [[X]]
// CHECK:         [[FIRST:%.+]] = stablehlo.select [[WHERE]], [[X]], [[NOT]]
// CHECK:         [[TWO:%.+]] = stablehlo.constant dense<2> : tensor<i32>
// CHECK:         stablehlo.compare LT, [[ZERO]], [[TWO]]
// CHECK:         [[SECOND:%.+]] = stablehlo.select {{.*}}, [[IOTA]], {{.*}} : tensor<4xi1>, tensor<4xi32>
// CHECK:         "stablehlo.sort"([[FIRST]], [[SECOND]])
func.func public @sorts(%x: tensor<4xf32> {tf.aliasing_output = 0 : i32}, %n: tensor<i32>) -> (tensor<4xf32>, tensor<4xi32>) {
  %0 = stablehlo.iota dim = 0 : tensor<4xi32>
  %1:2 = "stablehlo.sort"(%x, %0) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>, %c: tensor<i32>, %d: tensor<i32>):
    %2 = stablehlo.compare LT, %a, %b : (tensor<f32>, tensor<f32>) -> tensor<i1>
    stablehlo.return %2 : tensor<i1>
  }) : (tensor<4xf32>, tensor<4xi32>) -> (tensor<4xf32>, tensor<4xi32>)
  return %1#0, %1#1 : tensor<4xf32>, tensor<4xi32>
}

// Memory that is filled for it alone is the update's own, and so is what another update has made and nothing else reads.
// CHECK-LABEL: func.func public @fills
// CHECK-NOT:     stablehlo.select
// CHECK:         return
func.func public @fills(%x: tensor<1xf32>, %i: tensor<i32>) -> tensor<4xf32> {
  %zeros = stablehlo.constant dense<0.0> : tensor<4xf32>
  %0 = stablehlo.dynamic_update_slice %zeros, %x, %i : (tensor<4xf32>, tensor<1xf32>, tensor<i32>) -> tensor<4xf32>
  %1 = stablehlo.dynamic_update_slice %0, %x, %i : (tensor<4xf32>, tensor<1xf32>, tensor<i32>) -> tensor<4xf32>
  return %1 : tensor<4xf32>
}

// IREE runs the first and the last of three updates side by side, so the third has a copy.
// CHECK-LABEL: func.func public @fills_again
// CHECK-COUNT-2: stablehlo.dynamic_update_slice
// CHECK:         [[COPY:%.+]] = stablehlo.select {{.*}} : tensor<4xi1>, tensor<4xf32>
// CHECK:         stablehlo.dynamic_update_slice [[COPY]]
// CHECK-NOT:     stablehlo.select
// CHECK:         stablehlo.dynamic_update_slice
func.func public @fills_again(%x: tensor<1xf32>, %i: tensor<i32>) -> tensor<4xf32> {
  %zeros = stablehlo.constant dense<0.0> : tensor<4xf32>
  %0 = stablehlo.dynamic_update_slice %zeros, %x, %i : (tensor<4xf32>, tensor<1xf32>, tensor<i32>) -> tensor<4xf32>
  %1 = stablehlo.dynamic_update_slice %0, %x, %i : (tensor<4xf32>, tensor<1xf32>, tensor<i32>) -> tensor<4xf32>
  %2 = stablehlo.dynamic_update_slice %1, %x, %i : (tensor<4xf32>, tensor<1xf32>, tensor<i32>) -> tensor<4xf32>
  %3 = stablehlo.dynamic_update_slice %2, %x, %i : (tensor<4xf32>, tensor<1xf32>, tensor<i32>) -> tensor<4xf32>
  return %3 : tensor<4xf32>
}

// What a loop updates is copied once, before the loop, and what it does not update in place not at all where there is no
// such operation. The function that holds it is inlined.
// CHECK-LABEL: func.func public @loops
// CHECK:         [[Y:%.+]] = stablehlo.select {{.*}}, %arg0, {{.*}} : tensor<4xi1>, tensor<4xf32>
// CHECK:         stablehlo.while({{.*}} = [[Y]]
// CHECK-NOT:     stablehlo.select
// CHECK:         return
// CHECK-NOT:   func.func private
func.func public @loops(%x: tensor<4xf32>, %n: tensor<i32>) -> tensor<4xf32> {
  %0 = call @ones(%x, %n) : (tensor<4xf32>, tensor<i32>) -> tensor<4xf32>
  return %0 : tensor<4xf32>
}
func.func private @ones(%x: tensor<4xf32>, %n: tensor<i32>) -> tensor<4xf32> {
  %zero = stablehlo.constant dense<0> : tensor<i32>
  %one = stablehlo.constant dense<1> : tensor<i32>
  %new = stablehlo.constant dense<1.0> : tensor<1xf32>
  %0:2 = stablehlo.while(%y = %x, %i = %zero) : tensor<4xf32>, tensor<i32>
  cond {
    %1 = stablehlo.compare LT, %i, %n : (tensor<i32>, tensor<i32>) -> tensor<i1>
    stablehlo.return %1 : tensor<i1>
  } do {
    %1 = stablehlo.dynamic_update_slice %y, %new, %i : (tensor<4xf32>, tensor<1xf32>, tensor<i32>) -> tensor<4xf32>
    %2 = stablehlo.add %i, %one : tensor<i32>
    stablehlo.return %1, %2 : tensor<4xf32>, tensor<i32>
  }
  return %0#0 : tensor<4xf32>
}
