// RUN: %sonew-opt --pass move-unsigned %s | FileCheck %s

// CHECK-LABEL: func.func public @main
// CHECK:         [[X:%.+]] = stablehlo.bitcast_convert %arg0 : (tensor<2x3xui8>) -> tensor<2x3xi8>
// CHECK:         [[R:%.+]] = stablehlo.reverse [[X]], dims = [1] : tensor<2x3xi8>
// CHECK:         stablehlo.bitcast_convert [[R]] : (tensor<2x3xi8>) -> tensor<2x3xui8>
// CHECK:         stablehlo.reverse %arg1, dims = [0] : tensor<3xi8>
func.func public @main(%x: tensor<2x3xui8>, %y: tensor<3xi8>) -> (tensor<2x3xui8>, tensor<3xi8>) {
  %0 = stablehlo.reverse %x, dims = [1] : tensor<2x3xui8>
  %1 = stablehlo.reverse %y, dims = [0] : tensor<3xi8>
  return %0, %1 : tensor<2x3xui8>, tensor<3xi8>
}
