// The cosines and the product are written to the same places side by side.
module @sonew {
  func.func public @main(%x: tensor<2000xf32>, %y: tensor<1000xf32>, %w: tensor<1000x1000xf32>) -> tensor<2000xf32> {
    %first = stablehlo.constant dense<0> : tensor<i32>
    %second = stablehlo.constant dense<1000> : tensor<i32>
    %0 = stablehlo.sine %x : tensor<2000xf32>
    %1 = stablehlo.dot_general %w, %y, contracting_dims = [1] x [0]
        : (tensor<1000x1000xf32>, tensor<1000xf32>) -> tensor<1000xf32>
    %2 = stablehlo.dynamic_update_slice %0, %1, %second
        : (tensor<2000xf32>, tensor<1000xf32>, tensor<i32>) -> tensor<2000xf32>
    %3 = stablehlo.tanh %y : tensor<1000xf32>
    %4 = stablehlo.dynamic_update_slice %2, %3, %first
        : (tensor<2000xf32>, tensor<1000xf32>, tensor<i32>) -> tensor<2000xf32>
    %5 = stablehlo.cosine %y : tensor<1000xf32>
    %6 = stablehlo.dynamic_update_slice %4, %5, %second
        : (tensor<2000xf32>, tensor<1000xf32>, tensor<i32>) -> tensor<2000xf32>
    return %6 : tensor<2000xf32>
  }
}
