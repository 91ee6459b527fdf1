// RUN: %sonew-opt --pass unroll-loops:moved=1 %s | FileCheck %s
// RUN: %sonew-opt --pass unroll-loops:moved=1,operations=18 %s | FileCheck %s --check-prefix=TWICE
// RUN: %sonew-opt --pass unroll-loops %s | FileCheck %s --check-prefix=LITTLE

// A scan of four steps. Nothing of the loop stays, or two steps in one, which read from outside what the body passes on,
// or all where little is copied.
// CHECK-LABEL: func.func public @main
// CHECK-NOT:     stablehlo.while
// CHECK-COUNT-4: stablehlo.dynamic_update_slice
// CHECK-NOT:     stablehlo.dynamic_update_slice
// CHECK:         return
// TWICE:         stablehlo.while({{.+}} = {{.+}}, {{.+}} = {{.+}}) : tensor<i32>, tensor<4x8xf32>
// TWICE-COUNT-2: stablehlo.dynamic_update_slice
// TWICE-NOT:     stablehlo.dynamic_update_slice
// TWICE-NOT:     stablehlo.return {{.+}}, {{.+}}, {{.+}} :
// LITTLE:        stablehlo.while({{.+}} = {{.+}}, [[X:%.+]] = %arg0, {{.+}} = {{.+}}) : tensor<i32>, tensor<4x8xf32>, tensor<4x8xf32>
// LITTLE:        stablehlo.dynamic_slice [[X]]
func.func public @main(%xs: tensor<4x8xf32>) -> (tensor<4x8xf32>, tensor<4x8xf32>) {
  %zero = stablehlo.constant dense<0> : tensor<i32>
  %zeros = stablehlo.constant dense<0.0> : tensor<4x8xf32>
  %r:3 = stablehlo.while(%i = %zero, %x = %xs, %stack = %zeros) : tensor<i32>, tensor<4x8xf32>, tensor<4x8xf32>
  cond {
    %end = stablehlo.constant dense<4> : tensor<i32>
    %go = stablehlo.compare LT, %i, %end : (tensor<i32>, tensor<i32>) -> tensor<i1>
    stablehlo.return %go : tensor<i1>
  } do {
    %one = stablehlo.constant dense<1> : tensor<i32>
    %c0 = stablehlo.constant dense<0> : tensor<i32>
    %row = stablehlo.dynamic_slice %x, %i, %c0, sizes = [1, 8] : (tensor<4x8xf32>, tensor<i32>, tensor<i32>) -> tensor<1x8xf32>
    %new = stablehlo.tanh %row : tensor<1x8xf32>
    %next = stablehlo.dynamic_update_slice %stack, %new, %i, %c0 : (tensor<4x8xf32>, tensor<1x8xf32>, tensor<i32>, tensor<i32>) -> tensor<4x8xf32>
    %i1 = stablehlo.add %i, %one : tensor<i32>
    stablehlo.return %i1, %x, %next : tensor<i32>, tensor<4x8xf32>, tensor<4x8xf32>
  }
  return %r#2, %r#1 : tensor<4x8xf32>, tensor<4x8xf32>
}
