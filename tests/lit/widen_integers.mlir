// RUN: %sonew-opt --pass widen-integers %s | FileCheck %s

// CHECK-LABEL: func.func public @bytes
// CHECK-DAG:     [[X:%.+]] = stablehlo.convert %arg0 : (tensor<3xui8>) -> tensor<3xui32>
// CHECK-DAG:     [[Y:%.+]] = stablehlo.convert %arg1 : (tensor<3xui8>) -> tensor<3xui32>
// CHECK:         [[T:%.+]] = stablehlo.divide [[X]], [[Y]] : tensor<3xui32>
// CHECK:         [[M:%.+]] = stablehlo.constant dense<255> : tensor<3xui32>
// CHECK:         [[W:%.+]] = stablehlo.and [[T]], [[M]] : tensor<3xui32>
// CHECK:         stablehlo.convert [[W]] : (tensor<3xui32>) -> tensor<3xui8>
func.func public @bytes(%x: tensor<3xui8>, %y: tensor<3xui8>) -> tensor<3xui8> {
  %0 = stablehlo.divide %x, %y : tensor<3xui8>
  return %0 : tensor<3xui8>
}

// CHECK-LABEL: func.func public @signed
// CHECK:         [[T:%.+]] = stablehlo.add {{.+}} : tensor<3xi32>
// CHECK:         stablehlo.constant dense<16> : tensor<3xi32>
// CHECK:         [[U:%.+]] = stablehlo.shift_left [[T]]
// CHECK:         [[W:%.+]] = stablehlo.shift_right_arithmetic [[U]]
// CHECK:         stablehlo.convert [[W]] : (tensor<3xi32>) -> tensor<3xi16>
// CHECK:         stablehlo.compare LT, {{.+}} : (tensor<3xi32>, tensor<3xi32>) -> tensor<3xi1>
func.func public @signed(%x: tensor<3xi16>, %y: tensor<3xi16>) -> tensor<3xi1> {
  %0 = stablehlo.add %x, %y : tensor<3xi16>
  %1 = stablehlo.compare LT, %0, %y, SIGNED : (tensor<3xi16>, tensor<3xi16>) -> tensor<3xi1>
  return %1 : tensor<3xi1>
}

// Words stay, and so do the bodies of reductions.
// CHECK-LABEL: func.func public @others
// CHECK-NOT:     stablehlo.convert
// CHECK:         return
func.func public @others(%x: tensor<3xi32>, %b: tensor<3xi8>) -> (tensor<3xi32>, tensor<i8>) {
  %0 = stablehlo.multiply %x, %x : tensor<3xi32>
  %zero = stablehlo.constant dense<0> : tensor<i8>
  %1 = stablehlo.reduce(%b init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<3xi8>, tensor<i8>) -> tensor<i8>
  return %0, %1 : tensor<3xi32>, tensor<i8>
}
