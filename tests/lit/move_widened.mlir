// RUN: %sonew-opt --pass move-widened %s | FileCheck %s

// A weight that is widened is changed in its last places; what the function widens or reads otherwise is not.
// CHECK:      func.func public @main(%arg0: tensor<4xbf16>, %arg1: tensor<4xf32>, %arg2: tensor<i32>)
// CHECK-NEXT:   [[WIDE:%.+]] = stablehlo.convert %arg0 : (tensor<4xbf16>) -> tensor<4xf32>
// CHECK:        [[BITS:%.+]] = stablehlo.bitcast_convert %arg2 : (tensor<i32>) -> tensor<ui32>
// CHECK:        [[MOVED:%.+]] = stablehlo.multiply [[WIDE]], {{%.+}} : tensor<4xf32>
// CHECK-NEXT:   [[SUM:%.+]] = stablehlo.add [[MOVED]], %arg1 : tensor<4xf32>
// CHECK-NEXT:   [[NARROW:%.+]] = stablehlo.convert [[SUM]] : (tensor<4xf32>) -> tensor<4xbf16>
// CHECK-NEXT:   [[AGAIN:%.+]] = stablehlo.convert [[NARROW]] : (tensor<4xbf16>) -> tensor<4xf32>
// CHECK-NEXT:   return [[AGAIN]]
func.func public @main(%w: tensor<4xbf16>, %x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = stablehlo.convert %w : (tensor<4xbf16>) -> tensor<4xf32>
  %1 = stablehlo.add %0, %x : tensor<4xf32>
  %2 = stablehlo.convert %1 : (tensor<4xf32>) -> tensor<4xbf16>
  %3 = stablehlo.convert %2 : (tensor<4xbf16>) -> tensor<4xf32>
  return %3 : tensor<4xf32>
}
