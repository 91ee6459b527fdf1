// RUN: %sonew-opt --pass emulate-rounding %s | FileCheck %s
// RUN: %sonew-opt --pass emulate-rounding:native=bf16 %s | FileCheck %s --check-prefixes=CHECK,NATIVE

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

// A product in 16 bits reads the upper halves of the rounded bits, and a weight as it is stored; its readers in float32
// share the rounded number.
// NATIVE-LABEL: func.func public @product
// NATIVE:         [[ROUNDED:%.+]] = stablehlo.bitcast_convert {{.+}} : (tensor<2x4xui32>) -> tensor<2x4xf32>
// NATIVE:         [[HALF:%.+]] = stablehlo.bitcast_convert {{.+}} : (tensor<2x4xui16>) -> tensor<2x4xbf16>
// NATIVE-NEXT:    [[COPY:%.+]] = "flow.tensor.clone"([[HALF]])
// NATIVE:         stablehlo.dot_general [[COPY]], %arg1, contracting_dims = [1] x [0]
// NATIVE-NEXT:    stablehlo.tanh [[ROUNDED]]
func.func public @product(%x: tensor<2x4xf32>, %w: tensor<4x8xbf16>) -> (tensor<2x8xf32>, tensor<2x4xf32>) {
  %0 = stablehlo.convert %w : (tensor<4x8xbf16>) -> tensor<4x8xf32>
  %1 = stablehlo.convert %x : (tensor<2x4xf32>) -> tensor<2x4xbf16>
  %2 = stablehlo.convert %0 : (tensor<4x8xf32>) -> tensor<4x8xbf16>
  %3 = stablehlo.dot_general %1, %2, contracting_dims = [1] x [0]
      : (tensor<2x4xbf16>, tensor<4x8xbf16>) -> tensor<2x8xf32>
  %4 = stablehlo.convert %1 : (tensor<2x4xbf16>) -> tensor<2x4xf32>
  %5 = stablehlo.tanh %4 : tensor<2x4xf32>
  return %3, %5 : tensor<2x8xf32>, tensor<2x4xf32>
}
