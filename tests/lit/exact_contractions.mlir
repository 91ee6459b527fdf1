// RUN: %sonew-opt --pass exact-contractions %s | FileCheck %s

// CHECK-LABEL: func.func public @products
func.func public @products(
    %a: tensor<4x4xf32>, %b: tensor<4x4xbf16>, %c: tensor<1x4x4x1xf16>, %d: tensor<3x3x1x1xf16>)
    -> (tensor<4x4xf32>, tensor<4x4xf32>, tensor<1x2x2x1xf32>) {
  // CHECK-NEXT: stablehlo.dot_general %arg0, %arg0, contracting_dims = [1] x [0], precision = [HIGHEST, HIGHEST]
  %0 = stablehlo.dot_general %a, %a, contracting_dims = [1] x [0], precision = [DEFAULT, DEFAULT]
      : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  // Nothing is lost of bfloat16.
  // CHECK-NEXT: stablehlo.dot_general %arg1, %arg1, contracting_dims = [1] x [0] :
  %1 = stablehlo.dot_general %b, %b, contracting_dims = [1] x [0]
      : (tensor<4x4xbf16>, tensor<4x4xbf16>) -> tensor<4x4xf32>
  // CHECK-NEXT: stablehlo.convolution(%arg2, %arg3)
  // CHECK-SAME: precision_config = [#stablehlo<precision HIGHEST>, #stablehlo<precision HIGHEST>]
  %2 = stablehlo.convolution(%c, %d) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {}
      {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
      : (tensor<1x4x4x1xf16>, tensor<3x3x1x1xf16>) -> tensor<1x2x2x1xf32>
  return %0, %1, %2 : tensor<4x4xf32>, tensor<4x4xf32>, tensor<1x2x2x1xf32>
}

// An algorithm has its precision.
// CHECK-LABEL: func.func public @algorithm
// CHECK-NOT:     HIGHEST
// CHECK:         return
func.func public @algorithm(%x: tensor<4x8xf32>, %w: tensor<8x4xf32>) -> tensor<4x4xf32> {
  %r = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0], algorithm = <lhs_precision_type = f32, rhs_precision_type = f32, accumulation_type = f32, lhs_component_count = 1, rhs_component_count = 1, num_primitive_operations = 1, allow_imprecise_accumulation = false> : (tensor<4x8xf32>, tensor<8x4xf32>) -> tensor<4x4xf32>
  return %r : tensor<4x4xf32>
}
