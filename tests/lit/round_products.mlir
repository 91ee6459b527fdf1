// RUN: %sonew-opt --pass round-products %s | FileCheck %s
// RUN: %sonew-opt --pass round-products --pass emulate-contractions:native=bf16 --pass emulate-arithmetic %s | FileCheck %s --check-prefix=NATIVE

// A product's result is rounded once, from the sums in float32.
// CHECK-LABEL:  func.func public @train_step
// CHECK-NEXT:     %0 = stablehlo.dot_general %arg0, %arg1, contracting_dims = [1] x [0] : (tensor<4x8xbf16>, tensor<8x2xbf16>) -> tensor<4x2xf32>
// CHECK-NEXT:     %1 = stablehlo.convert %0 : (tensor<4x2xf32>) -> tensor<4x2xbf16>
// CHECK-NEXT:     return %1 : tensor<4x2xbf16>
// Where the processor has units for the operands, they stay.
// NATIVE-LABEL: func.func public @train_step
// NATIVE-NEXT:    %0 = stablehlo.dot_general %arg0, %arg1, contracting_dims = [1] x [0] : (tensor<4x8xbf16>, tensor<8x2xbf16>) -> tensor<4x2xf32>
// NATIVE-NEXT:    %1 = stablehlo.convert %0 : (tensor<4x2xf32>) -> tensor<4x2xbf16>
// NATIVE-NEXT:    return %1
func.func public @train_step(%x: tensor<4x8xbf16>, %w: tensor<8x2xbf16>) -> tensor<4x2xbf16> {
  %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
    : (tensor<4x8xbf16>, tensor<8x2xbf16>) -> tensor<4x2xbf16>
  return %0 : tensor<4x2xbf16>
}

// One that is float32 already is left.
// CHECK-LABEL:  func.func public @eval_step
// CHECK-NEXT:     %0 = stablehlo.dot_general %arg0, %arg1, contracting_dims = [1] x [0] : (tensor<4x8xbf16>, tensor<8x2xbf16>) -> tensor<4x2xf32>
// CHECK-NEXT:     return %0
func.func public @eval_step(%x: tensor<4x8xbf16>, %w: tensor<8x2xbf16>) -> tensor<4x2xf32> {
  %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
    : (tensor<4x8xbf16>, tensor<8x2xbf16>) -> tensor<4x2xf32>
  return %0 : tensor<4x2xf32>
}

// Units for bfloat16 do nothing for float16, and IREE has no code that uses them for convolutions.
// CHECK-LABEL:  func.func public @predict
// CHECK:          stablehlo.dot_general {{.*}} : (tensor<4x8xf16>, tensor<8x2xf16>) -> tensor<4x2xf32>
// CHECK:          stablehlo.convolution{{.*}} : (tensor<1x4x4x2xbf16>, tensor<2x2x2x3xbf16>) -> tensor<1x3x3x3xf32>
// NATIVE-LABEL: func.func public @predict
// NATIVE:         stablehlo.dot_general {{.*}} : (tensor<4x8xf32>, tensor<8x2xf32>) -> tensor<4x2xf32>
// NATIVE:         stablehlo.convolution{{.*}} : (tensor<1x4x4x2xf32>, tensor<2x2x2x3xf32>) -> tensor<1x3x3x3xf32>
func.func public @predict(%x: tensor<4x8xf16>, %w: tensor<8x2xf16>, %i: tensor<1x4x4x2xbf16>, %k: tensor<2x2x2x3xbf16>)
    -> (tensor<4x2xf16>, tensor<1x3x3x3xbf16>) {
  %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
    : (tensor<4x8xf16>, tensor<8x2xf16>) -> tensor<4x2xf16>
  %1 = stablehlo.convolution(%i, %k) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x4x4x2xbf16>, tensor<2x2x2x3xbf16>) -> tensor<1x3x3x3xbf16>
  return %0, %1 : tensor<4x2xf16>, tensor<1x3x3x3xbf16>
}

// An outer product is a multiplication, in float32.
// CHECK-LABEL:  func.func public @outer
// CHECK-NEXT:     [[X:%.+]] = stablehlo.convert %arg0 : (tensor<4x1xbf16>) -> tensor<4x1xf32>
// CHECK-NEXT:     [[Y:%.+]] = stablehlo.convert %arg1 : (tensor<1x4xbf16>) -> tensor<1x4xf32>
// CHECK-NEXT:     [[Z:%.+]] = stablehlo.dot_general [[X]], [[Y]], {{.*}} -> tensor<4x4xf32>
// CHECK-NEXT:     [[ROUNDED:%.+]] = stablehlo.convert [[Z]] : (tensor<4x4xf32>) -> tensor<4x4xbf16>
// CHECK-NEXT:     return [[ROUNDED]]
func.func public @outer(%x: tensor<4x1xbf16>, %y: tensor<1x4xbf16>) -> tensor<4x4xbf16> {
  %0 = stablehlo.dot_general %x, %y, contracting_dims = [1] x [0]
    : (tensor<4x1xbf16>, tensor<1x4xbf16>) -> tensor<4x4xbf16>
  return %0 : tensor<4x4xbf16>
}
