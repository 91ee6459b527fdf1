// RUN: %sonew-opt --pass fence-elements %s | FileCheck %s

// CHECK-LABEL: func.func public @gathered
// CHECK:         [[ELEMENT:%.+]] = "stablehlo.gather"
// CHECK-NEXT:    [[COPY:%.+]] = "flow.tensor.clone"([[ELEMENT]]) : (tensor<f32>) -> tensor<f32>
// CHECK:         stablehlo.add [[COPY]], %{{.+}} : tensor<f32>
func.func public @gathered(%x: tensor<4xf32>, %index: tensor<1xi32>) -> tensor<f32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %element = "stablehlo.gather"(%x, %index) <{dimension_numbers = #stablehlo.gather<collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 0>, slice_sizes = array<i64: 1>}> : (tensor<4xf32>, tensor<1xi32>) -> tensor<f32>
  %sum = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<4xf32>, tensor<f32>) -> tensor<f32>
  %0 = stablehlo.add %element, %sum : tensor<f32>
  return %0 : tensor<f32>
}

// An element of a function of a reversed tensor: only what leaves the one element is copied.
// CHECK-LABEL: func.func public @reversed
// CHECK:         [[BACK:%.+]] = stablehlo.reverse
// CHECK-NEXT:    [[CURVED:%.+]] = stablehlo.tanh [[BACK]]
// CHECK-NEXT:    [[PART:%.+]] = stablehlo.slice [[CURVED]] [0:1]
// CHECK-NEXT:    [[COPY:%.+]] = "flow.tensor.clone"([[PART]]) : (tensor<1xf32>) -> tensor<1xf32>
// CHECK-NEXT:    [[NUMBER:%.+]] = stablehlo.reshape [[COPY]]
// CHECK-NEXT:    return [[CURVED]], [[NUMBER]]
func.func public @reversed(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<f32>) {
  %back = stablehlo.reverse %x, dims = [0] : tensor<4xf32>
  %curved = stablehlo.tanh %back : tensor<4xf32>
  %part = stablehlo.slice %curved [0:1] : (tensor<4xf32>) -> tensor<1xf32>
  %number = stablehlo.reshape %part : (tensor<1xf32>) -> tensor<f32>
  return %curved, %number : tensor<4xf32>, tensor<f32>
}

// An element of an argument, and several elements of a gather, stay.
// CHECK-LABEL: func.func public @others
// CHECK-NOT:     clone
// CHECK:         return
func.func public @others(%x: tensor<4xf32>, %index: tensor<3x1xi32>) -> (tensor<1xf32>, tensor<3xf32>) {
  %part = stablehlo.slice %x [2:3] : (tensor<4xf32>) -> tensor<1xf32>
  %some = "stablehlo.gather"(%x, %index) <{dimension_numbers = #stablehlo.gather<collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = 1>, slice_sizes = array<i64: 1>}> : (tensor<4xf32>, tensor<3x1xi32>) -> tensor<3xf32>
  return %part, %some : tensor<1xf32>, tensor<3xf32>
}

// Steps along the last axis: the slice is copied before it is reversed, also if it is transposed in between.
// CHECK-LABEL: func.func public @steps
// CHECK:         [[ODD:%.+]] = stablehlo.slice %arg0 [0:3, 1:8:2]
// CHECK-NEXT:    [[COPY:%.+]] = "flow.tensor.clone"([[ODD]]) : (tensor<3x4xf32>) -> tensor<3x4xf32>
// CHECK-NEXT:    [[TURNED:%.+]] = stablehlo.transpose [[COPY]]
// CHECK-NEXT:    stablehlo.reverse [[TURNED]]
func.func public @steps(%x: tensor<3x8xf32>) -> tensor<4x3xf32> {
  %odd = stablehlo.slice %x [0:3, 1:8:2] : (tensor<3x8xf32>) -> tensor<3x4xf32>
  %turned = stablehlo.transpose %odd, dims = [1, 0] : (tensor<3x4xf32>) -> tensor<4x3xf32>
  %back = stablehlo.reverse %turned, dims = [0] : tensor<4x3xf32>
  return %back : tensor<4x3xf32>
}

// Steps along another axis, and a function of the slice, stay.
// CHECK-LABEL: func.func public @fused_steps
// CHECK-NOT:     clone
// CHECK:         return
func.func public @fused_steps(%x: tensor<8x4xf32>) -> (tensor<4x4xf32>, tensor<8x2xf32>) {
  %rows = stablehlo.slice %x [0:8:2, 0:4] : (tensor<8x4xf32>) -> tensor<4x4xf32>
  %back = stablehlo.reverse %rows, dims = [0] : tensor<4x4xf32>
  %columns = stablehlo.slice %x [0:8, 0:4:2] : (tensor<8x4xf32>) -> tensor<8x2xf32>
  %curved = stablehlo.tanh %columns : tensor<8x2xf32>
  %turned = stablehlo.reverse %curved, dims = [1] : tensor<8x2xf32>
  return %back, %turned : tensor<4x4xf32>, tensor<8x2xf32>
}
