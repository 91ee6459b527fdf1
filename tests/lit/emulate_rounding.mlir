// RUN: %sonew-opt --pass emulate-rounding %s | FileCheck %s

// What is rounded and widened again is rounded on its bits.
// CHECK-LABEL: func.func public @operand
// CHECK-NOT:     bf16
// CHECK:         [[BITS:%.+]] = stablehlo.bitcast_convert %arg0 : (tensor<4xf32>) -> tensor<4xui32>
// CHECK-NOT:     bf16
// CHECK:         [[ROUNDED:%.+]] = stablehlo.bitcast_convert {{.+}} : (tensor<4xui32>) -> tensor<4xf32>
// CHECK-NEXT:    stablehlo.tanh [[ROUNDED]] : tensor<4xf32>
func.func public @operand(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = stablehlo.convert %x : (tensor<4xf32>) -> tensor<4xbf16>
  %1 = stablehlo.convert %0 : (tensor<4xbf16>) -> tensor<4xf32>
  %2 = stablehlo.tanh %1 : tensor<4xf32>
  return %2 : tensor<4xf32>
}

// What was widened has nothing to round, but is kept apart from what reads it.
// CHECK-LABEL: func.func public @weight
// CHECK-NEXT:    [[WIDE:%.+]] = stablehlo.convert %arg0 : (tensor<4xbf16>) -> tensor<4xf32>
// CHECK-NEXT:    [[COPY:%.+]] = "flow.tensor.clone"([[WIDE]]) : (tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:    stablehlo.tanh [[COPY]] : tensor<4xf32>
func.func public @weight(%w: tensor<4xbf16>) -> tensor<4xf32> {
  %0 = stablehlo.convert %w : (tensor<4xbf16>) -> tensor<4xf32>
  %1 = stablehlo.convert %0 : (tensor<4xf32>) -> tensor<4xbf16>
  %2 = stablehlo.convert %1 : (tensor<4xbf16>) -> tensor<4xf32>
  %3 = stablehlo.tanh %2 : tensor<4xf32>
  return %3 : tensor<4xf32>
}

// What only leaves its function is left alone.
// CHECK-LABEL: func.func public @result
// CHECK-NEXT:    %0 = stablehlo.convert %arg0 : (tensor<4xf32>) -> tensor<4xbf16>
// CHECK-NEXT:    return %0
func.func public @result(%x: tensor<4xf32>) -> tensor<4xbf16> {
  %0 = stablehlo.convert %x : (tensor<4xf32>) -> tensor<4xbf16>
  return %0 : tensor<4xbf16>
}

// Zero is added between an integer or a boolean and its rounding, and nothing to other integers.
// CHECK-LABEL: func.func public @identity
// CHECK-DAG:     [[NUMBER:%.+]] = stablehlo.convert %arg0 : (tensor<4xi1>) -> tensor<4xf32>
// CHECK-DAG:     [[ZERO:%.+]] = stablehlo.constant dense<0.000000e+00> : tensor<4xf32>
// CHECK:         [[APART:%.+]] = stablehlo.add [[NUMBER]], [[ZERO]] : tensor<4xf32>
// CHECK-NEXT:    [[NARROW:%.+]] = stablehlo.convert [[APART]] : (tensor<4xf32>) -> tensor<4xbf16>
// CHECK-NEXT:    [[WHOLE:%.+]] = stablehlo.convert %arg0 : (tensor<4xi1>) -> tensor<4xi32>
// CHECK-NEXT:    return [[NARROW]], [[WHOLE]]
func.func public @identity(%is: tensor<4xi1>) -> (tensor<4xbf16>, tensor<4xi32>) {
  %0 = stablehlo.convert %is : (tensor<4xi1>) -> tensor<4xf32>
  %1 = stablehlo.convert %0 : (tensor<4xf32>) -> tensor<4xbf16>
  %2 = stablehlo.convert %is : (tensor<4xi1>) -> tensor<4xi32>
  return %1, %2 : tensor<4xbf16>, tensor<4xi32>
}
