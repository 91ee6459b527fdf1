func.func public @main(%a: tensor<8x6x2xf32>, %b: tensor<8x2x6xf32>) -> tensor<8x6x6xf32> {
  %0 = stablehlo.dot_general %a, %b, batching_dims = [0] x [0], contracting_dims = [2] x [1] : (tensor<8x6x2xf32>, tensor<8x2x6xf32>) -> tensor<8x6x6xf32>
  return %0 : tensor<8x6x6xf32>
}
