// RUN: %sonew-opt --pass fence-regions %s | FileCheck %s

// What a branch gives comes from behind barriers, one inside and one outside. `y * 1` may be `y`: it is a copy.
// CHECK-LABEL: func.func public @branches
// CHECK:         [[RESULT:%.+]]:2 = "stablehlo.case"(%arg0) ({
// CHECK:           [[SAME:%.+]] = stablehlo.multiply %arg1
// CHECK:           [[COPY:%.+]] = stablehlo.select {{.*}}, [[SAME]], {{.*}} : tensor<4xi1>, tensor<4xf32>
// CHECK-NEXT:      [[HELD:%.+]]:2 = stablehlo.optimization_barrier %arg1, [[COPY]]
// CHECK-NEXT:      stablehlo.return [[HELD]]#0, [[HELD]]#1
// CHECK:         }, {
// CHECK:           [[OTHERS:%.+]]:2 = stablehlo.optimization_barrier
// CHECK-NEXT:      stablehlo.return [[OTHERS]]#0, [[OTHERS]]#1
// CHECK:         [[GIVEN:%.+]]:2 = stablehlo.optimization_barrier [[RESULT]]#0, [[RESULT]]#1
// CHECK-NEXT:    return [[GIVEN]]#0, [[GIVEN]]#1
func.func public @branches(%i: tensor<i32>, %y: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %0:2 = "stablehlo.case"(%i) ({
    %one = stablehlo.constant dense<1.0> : tensor<4xf32>
    %1 = stablehlo.multiply %y, %one : tensor<4xf32>
    stablehlo.return %y, %1 : tensor<4xf32>, tensor<4xf32>
  }, {
    %1 = stablehlo.tanh %y : tensor<4xf32>
    %2 = stablehlo.sine %y : tensor<4xf32>
    stablehlo.return %1, %2 : tensor<4xf32>, tensor<4xf32>
  }) : (tensor<i32>) -> (tensor<4xf32>, tensor<4xf32>)
  return %0#0, %0#1 : tensor<4xf32>, tensor<4xf32>
}

// So does what a loop begins with and goes on with. What its body does not read, the last, a barrier does.
// CHECK-LABEL: func.func public @loops
// CHECK:         [[FIRST:%.+]]:2 = stablehlo.optimization_barrier %arg0, %arg1
// CHECK:         [[LOOP:%.+]]:2 = stablehlo.while([[N:%.+]] = [[FIRST]]#0, [[Y:%.+]] = [[FIRST]]#1)
// CHECK:         do {
// CHECK:           [[NEXT:%.+]]:3 = stablehlo.optimization_barrier {{%.+}}, {{%.+}}, [[Y]]
// CHECK-NEXT:      stablehlo.return [[NEXT]]#0, [[NEXT]]#1
// CHECK:         [[LAST:%.+]]:2 = stablehlo.optimization_barrier [[LOOP]]#0, [[LOOP]]#1
// CHECK-NEXT:    return [[LAST]]#1
func.func public @loops(%n: tensor<f32>, %y: tensor<f32>) -> tensor<f32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %one = stablehlo.constant dense<1.0> : tensor<f32>
  %0:2 = stablehlo.while(%k = %n, %x = %y) : tensor<f32>, tensor<f32>
  cond {
    %1 = stablehlo.compare GT, %k, %zero : (tensor<f32>, tensor<f32>) -> tensor<i1>
    stablehlo.return %1 : tensor<i1>
  } do {
    %1 = stablehlo.subtract %k, %one : tensor<f32>
    %2 = stablehlo.sine %k : tensor<f32>
    stablehlo.return %1, %2 : tensor<f32>, tensor<f32>
  }
  return %0#1 : tensor<f32>
}

// An update of the whole does not read what was there, and what nothing reads that is handed on reads nothing: a barrier
// reads both. %w is read.
// CHECK-LABEL: func.func public @overwritten
// CHECK:         stablehlo.while([[N:%.+]] = {{%.+}}, [[Y:%.+]] = {{%.+}}, [[V:%.+]] = {{%.+}}, [[W:%.+]] = {{%.+}})
// CHECK:         do {
// CHECK:           [[NEXT:%.+]]:6 = stablehlo.optimization_barrier {{%.+}}, {{%.+}}, {{%.+}}, {{%.+}}, [[Y]], [[V]] :
// CHECK-NEXT:      stablehlo.return [[NEXT]]#0, [[NEXT]]#1, [[NEXT]]#2, [[NEXT]]#3
func.func public @overwritten(%n: tensor<i32>, %y: tensor<1xf32>, %w: tensor<2xf32>) -> (tensor<1xf32>, tensor<1xf32>, tensor<2xf32>) {
  %zero = stablehlo.constant dense<0> : tensor<i32>
  %one = stablehlo.constant dense<1> : tensor<i32>
  %0:4 = stablehlo.while(%k = %n, %x = %y, %v = %y, %u = %w) : tensor<i32>, tensor<1xf32>, tensor<1xf32>, tensor<2xf32>
  cond {
    %1 = stablehlo.compare GT, %k, %zero : (tensor<i32>, tensor<i32>) -> tensor<i1>
    stablehlo.return %1 : tensor<i1>
  } do {
    %1 = stablehlo.subtract %k, %one : tensor<i32>
    %2 = stablehlo.convert %k : (tensor<i32>) -> tensor<f32>
    %3 = stablehlo.reshape %2 : (tensor<f32>) -> tensor<1xf32>
    %4 = stablehlo.dynamic_update_slice %x, %3, %k : (tensor<1xf32>, tensor<1xf32>, tensor<i32>) -> tensor<1xf32>
    %5 = stablehlo.sine %v : tensor<1xf32>
    %6 = stablehlo.dynamic_update_slice %u, %3, %k : (tensor<2xf32>, tensor<1xf32>, tensor<i32>) -> tensor<2xf32>
    stablehlo.return %1, %4, %3, %6 : tensor<i32>, tensor<1xf32>, tensor<1xf32>, tensor<2xf32>
  }
  return %0#1, %0#2, %0#3 : tensor<1xf32>, tensor<1xf32>, tensor<2xf32>
}
