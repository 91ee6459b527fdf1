// RUN: %sonew-opt --pass drop-roundings %s | FileCheck %s

// The negative magnitude of a number of 16 bits, through a function, is one of 16 bits too.
// CHECK-LABEL: func.func public @chain
// CHECK-NEXT:    [[X:%.+]] = stablehlo.convert %arg0 : (tensor<4xbf16>) -> tensor<4xf32>
// CHECK-NEXT:    [[MAGNITUDE:%.+]] = stablehlo.abs [[X]] : tensor<4xf32>
// CHECK-NEXT:    [[NEGATIVE:%.+]] = stablehlo.negate [[MAGNITUDE]] : tensor<4xf32>
// CHECK-NEXT:    [[Y:%.+]] = stablehlo.convert %arg1 : (tensor<4xbf16>) -> tensor<4xf32>
// CHECK-NEXT:    [[LARGER:%.+]] = stablehlo.maximum [[NEGATIVE]], [[Y]] : tensor<4xf32>
// CHECK-NEXT:    [[SUM:%.+]] = stablehlo.add [[LARGER]], [[Y]] : tensor<4xf32>
// CHECK-NEXT:    [[ROUNDED:%.+]] = stablehlo.convert [[SUM]] : (tensor<4xf32>) -> tensor<4xbf16>
// A sum has more bits, so what reads it rounded keeps reading it rounded.
// CHECK-NEXT:    [[WIDE:%.+]] = stablehlo.convert [[ROUNDED]] : (tensor<4xbf16>) -> tensor<4xf32>
// CHECK-NEXT:    [[SIGN:%.+]] = stablehlo.negate [[WIDE]] : tensor<4xf32>
// CHECK-NEXT:    [[RESULT:%.+]] = stablehlo.convert [[SIGN]] : (tensor<4xf32>) -> tensor<4xbf16>
// CHECK-NEXT:    return [[RESULT]] : tensor<4xbf16>
func.func public @chain(%x: tensor<4xbf16>, %y: tensor<4xbf16>) -> tensor<4xbf16> {
  %0 = func.call @magnitude(%x) : (tensor<4xbf16>) -> tensor<4xbf16>
  %1 = stablehlo.convert %0 : (tensor<4xbf16>) -> tensor<4xf32>
  %2 = stablehlo.negate %1 : tensor<4xf32>
  %3 = stablehlo.convert %2 : (tensor<4xf32>) -> tensor<4xbf16>
  %4 = stablehlo.convert %3 : (tensor<4xbf16>) -> tensor<4xf32>
  %5 = stablehlo.convert %y : (tensor<4xbf16>) -> tensor<4xf32>
  %6 = stablehlo.maximum %4, %5 : tensor<4xf32>
  %7 = stablehlo.convert %6 : (tensor<4xf32>) -> tensor<4xbf16>
  %8 = stablehlo.convert %7 : (tensor<4xbf16>) -> tensor<4xf32>
  %9 = stablehlo.add %8, %5 : tensor<4xf32>
  %10 = stablehlo.convert %9 : (tensor<4xf32>) -> tensor<4xbf16>
  %11 = stablehlo.convert %10 : (tensor<4xbf16>) -> tensor<4xf32>
  %12 = stablehlo.negate %11 : tensor<4xf32>
  %13 = stablehlo.convert %12 : (tensor<4xf32>) -> tensor<4xbf16>
  return %13 : tensor<4xbf16>
}

func.func private @magnitude(%x: tensor<4xbf16>) -> tensor<4xbf16> {
  %0 = stablehlo.convert %x : (tensor<4xbf16>) -> tensor<4xf32>
  %1 = stablehlo.abs %0 : tensor<4xf32>
  %2 = stablehlo.convert %1 : (tensor<4xf32>) -> tensor<4xbf16>
  return %2 : tensor<4xbf16>
}

// One operand is no number of 16 bits, or one of another 16-bit type, or the rounding is to another type.
// CHECK-LABEL: func.func public @others
// CHECK-COUNT-3: stablehlo.convert {{.+}} : (tensor<4xf32>) -> tensor<4x{{b?}}f16>
// CHECK-NOT:     (tensor<4xf32>) -> tensor<4x
// CHECK:         return
func.func public @others(%x: tensor<4xbf16>, %y: tensor<4xf32>, %z: tensor<4xf16>)
    -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) {
  %0 = stablehlo.convert %x : (tensor<4xbf16>) -> tensor<4xf32>
  %1 = stablehlo.convert %z : (tensor<4xf16>) -> tensor<4xf32>
  %2 = stablehlo.maximum %0, %y : tensor<4xf32>
  %3 = stablehlo.convert %2 : (tensor<4xf32>) -> tensor<4xbf16>
  %4 = stablehlo.convert %3 : (tensor<4xbf16>) -> tensor<4xf32>
  %5 = stablehlo.minimum %0, %1 : tensor<4xf32>
  %6 = stablehlo.convert %5 : (tensor<4xf32>) -> tensor<4xbf16>
  %7 = stablehlo.convert %6 : (tensor<4xbf16>) -> tensor<4xf32>
  %8 = stablehlo.negate %0 : tensor<4xf32>
  %9 = stablehlo.convert %8 : (tensor<4xf32>) -> tensor<4xf16>
  %10 = stablehlo.convert %9 : (tensor<4xf16>) -> tensor<4xf32>
  return %4, %7, %10 : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>
}
