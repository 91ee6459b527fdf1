// The last of the ones are read while they are still being written.
module @sonew {
  func.func public @main(%x: tensor<8xf32>) -> tensor<4xf32> {
    %0 = stablehlo.constant dense<1.0> : tensor<8388608xf32>
    %1 = stablehlo.slice %x [0:4] : (tensor<8xf32>) -> tensor<4xf32>
    %2 = stablehlo.concatenate %0, %1, dim = 0 : (tensor<8388608xf32>, tensor<4xf32>) -> tensor<8388612xf32>
    %3 = stablehlo.slice %2 [8388604:8388608] : (tensor<8388612xf32>) -> tensor<4xf32>
    return %3 : tensor<4xf32>
  }
}
