// RUN: %sonew-opt --pass lower-contractions %s | FileCheck %s
// RUN: %sonew-opt --pass lower-contractions:dtype=f16 --pass emulate-contractions %s | FileCheck %s --check-prefix=EMULATED
// RUN: %sonew-opt --pass lower-contractions --pass emulate-contractions --pass emulate-rounding %s | FileCheck %s --check-prefix=ROUNDED

// CHECK-LABEL:    func.func public @train_step
// EMULATED-LABEL: func.func public @train_step
// ROUNDED-LABEL:  func.func public @train_step
func.func public @train_step(%w: tensor<4x4xf32>, %x: tensor<4x4xf32>) -> tensor<4x4xf32> {
  %0 = func.call @train_step__gradients(%w, %x) : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %1 = func.call @train_step__update(%w, %0) : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  return %1 : tensor<4x4xf32>
}

// Operands are rounded; the accumulator, and so the result, has all bits.
// CHECK-LABEL:  func.func private @train_step__gradients
// CHECK-NEXT:     %0 = stablehlo.convert %arg1 : (tensor<4x4xf32>) -> tensor<4x4xbf16>
// CHECK-NEXT:     %1 = stablehlo.convert %arg0 : (tensor<4x4xf32>) -> tensor<4x4xbf16>
// CHECK-NEXT:     %2 = stablehlo.dot_general %0, %1, contracting_dims = [1] x [0] : (tensor<4x4xbf16>, tensor<4x4xbf16>) -> tensor<4x4xf32>
// CHECK-NEXT:     %3 = call @train_step__transposed_dot(%arg0, %2)
// EMULATED-LABEL: func.func private @train_step__gradients
// EMULATED-NEXT:  %0 = stablehlo.convert %arg1 : (tensor<4x4xf32>) -> tensor<4x4xf16>
// EMULATED-NEXT:  %1 = stablehlo.convert %arg0 : (tensor<4x4xf32>) -> tensor<4x4xf16>
// EMULATED-NEXT:  %2 = stablehlo.convert %0 : (tensor<4x4xf16>) -> tensor<4x4xf32>
// EMULATED-NEXT:  %3 = stablehlo.convert %1 : (tensor<4x4xf16>) -> tensor<4x4xf32>
// EMULATED-NEXT:  %4 = stablehlo.dot_general %2, %3, contracting_dims = [1] x [0] : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
// No 16-bit type is left.
// ROUNDED-LABEL: func.func private @train_step__gradients
// ROUNDED-NOT:   bf16
// ROUNDED:       stablehlo.bitcast_convert %arg1 : (tensor<4x4xf32>) -> tensor<4x4xui32>
// ROUNDED-NOT:   bf16
// ROUNDED:       stablehlo.dot_general {{.*}} : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
func.func private @train_step__gradients(%w: tensor<4x4xf32>, %x: tensor<4x4xf32>) -> tensor<4x4xf32> {
  %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
    : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %1 = func.call @train_step__transposed_dot(%w, %0) : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  return %1 : tensor<4x4xf32>
}

// What the update alone does is not touched,
// CHECK-LABEL:  func.func private @train_step__update
// CHECK-NEXT:     stablehlo.dot_general %arg0, %arg1, contracting_dims = [1] x [0] : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
func.func private @train_step__update(%w: tensor<4x4xf32>, %g: tensor<4x4xf32>) -> tensor<4x4xf32> {
  %0 = stablehlo.dot_general %w, %g, contracting_dims = [1] x [0]
    : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %1 = func.call @train_step__transposed_dot(%w, %0) : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  return %1 : tensor<4x4xf32>
}

// unlike what the gradients share with it. What was 16 bits wide before is read as it was.
// CHECK-LABEL:  func.func private @train_step__transposed_dot
// CHECK-NEXT:     %0 = stablehlo.convert %arg0 : (tensor<4x4xf32>) -> tensor<4x4xbf16>
// CHECK-NEXT:     %1 = stablehlo.convert %0 : (tensor<4x4xbf16>) -> tensor<4x4xf32>
// CHECK-NEXT:     %2 = stablehlo.convert %arg1 : (tensor<4x4xf32>) -> tensor<4x4xbf16>
// CHECK-NEXT:     %3 = stablehlo.dot_general %0, %2,
func.func private @train_step__transposed_dot(%w: tensor<4x4xf32>, %g: tensor<4x4xf32>) -> tensor<4x4xf32> {
  %0 = stablehlo.convert %w : (tensor<4x4xf32>) -> tensor<4x4xbf16>
  %1 = stablehlo.convert %0 : (tensor<4x4xbf16>) -> tensor<4x4xf32>
  %2 = stablehlo.dot_general %1, %g, contracting_dims = [1] x [1]
    : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  return %2 : tensor<4x4xf32>
}

// A result of 16 bits is rounded from the float32 one.
// EMULATED-LABEL: func.func public @narrow
// EMULATED:       %2 = stablehlo.dot_general %0, %1, contracting_dims = [1] x [0] : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
// EMULATED-NEXT:  %3 = stablehlo.convert %2 : (tensor<4x4xf32>) -> tensor<4x4xbf16>
// EMULATED-NEXT:  return %3
func.func public @narrow(%x: tensor<4x4xbf16>) -> tensor<4x4xbf16> {
  %0 = stablehlo.dot_general %x, %x, contracting_dims = [1] x [0]
    : (tensor<4x4xbf16>, tensor<4x4xbf16>) -> tensor<4x4xbf16>
  return %0 : tensor<4x4xbf16>
}
