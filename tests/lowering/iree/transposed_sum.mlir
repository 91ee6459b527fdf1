func.func public @main(%x: tensor<4x8x8xf32>, %y: tensor<8x4x8xf32>) -> tensor<8x4x8xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [2] : (tensor<4x8x8xf32>, tensor<f32>) -> tensor<4x8xf32>
  %1 = stablehlo.broadcast_in_dim %0, dims = [0, 1] : (tensor<4x8xf32>) -> tensor<4x8x8xf32>
  %2 = stablehlo.multiply %1, %x : tensor<4x8x8xf32>
  %3 = stablehlo.transpose %2, dims = [2, 0, 1] : (tensor<4x8x8xf32>) -> tensor<8x4x8xf32>
  %4 = stablehlo.add %3, %y : tensor<8x4x8xf32>
  return %4 : tensor<8x4x8xf32>
}
