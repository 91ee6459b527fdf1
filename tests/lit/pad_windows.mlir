// RUN: %sonew-opt --pass pad-windows %s | FileCheck %s

// CHECK-LABEL: func.func public @unsigned
// CHECK:         [[PADDED:%.+]] = stablehlo.pad %arg0, %c, low = [3], high = [0], interior = [1] : (tensor<4xui8>, tensor<ui8>) -> tensor<10xui8>
// CHECK:         "stablehlo.reduce_window"([[PADDED]], %c)
// CHECK-NOT:     padding =
func.func public @unsigned(%x: tensor<4xui8>) -> tensor<7xui8> {
  %zero = stablehlo.constant dense<0> : tensor<ui8>
  %0 = "stablehlo.reduce_window"(%x, %zero) <{
      base_dilations = array<i64: 2>, padding = dense<[[3, 0]]> : tensor<1x2xi64>, window_dimensions = array<i64: 4>
    }> ({
    ^bb0(%a: tensor<ui8>, %b: tensor<ui8>):
      %sum = stablehlo.add %a, %b : tensor<ui8>
      stablehlo.return %sum : tensor<ui8>
  }) : (tensor<4xui8>, tensor<ui8>) -> tensor<7xui8>
  return %0 : tensor<7xui8>
}

// CHECK-LABEL: func.func public @signed
// CHECK-NOT:     stablehlo.pad
func.func public @signed(%x: tensor<4xi8>) -> tensor<4xi8> {
  %zero = stablehlo.constant dense<0> : tensor<i8>
  %0 = "stablehlo.reduce_window"(%x, %zero) <{
      padding = dense<[[3, 0]]> : tensor<1x2xi64>, window_dimensions = array<i64: 4>
    }> ({
    ^bb0(%a: tensor<i8>, %b: tensor<i8>):
      %sum = stablehlo.add %a, %b : tensor<i8>
      stablehlo.return %sum : tensor<i8>
  }) : (tensor<4xi8>, tensor<i8>) -> tensor<4xi8>
  return %0 : tensor<4xi8>
}
