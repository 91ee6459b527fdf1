// The second half of the product is copied while the product is still being computed.
module @sonew {
  func.func public @main(%x: tensor<1000xf32>, %y: tensor<2000xf32>, %w: tensor<1000x1000xf32>)
      -> (tensor<500xf32>, tensor<3000xf32>) {
    %0 = stablehlo.dot_general %w, %x, contracting_dims = [1] x [0]
        : (tensor<1000x1000xf32>, tensor<1000xf32>) -> tensor<1000xf32>
    %1 = stablehlo.cosine %y : tensor<2000xf32>
    %2 = stablehlo.concatenate %0, %1, dim = 0 : (tensor<1000xf32>, tensor<2000xf32>) -> tensor<3000xf32>
    %3 = stablehlo.slice %2 [500:1000] : (tensor<3000xf32>) -> tensor<500xf32>
    return %3, %2 : tensor<500xf32>, tensor<3000xf32>
  }
}
