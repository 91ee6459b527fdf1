// The second branch hands the hyperbolic tangent through. Its memory is freed after the cosine, and it is read once more.
module @sonew {
  func.func public @main(%x: tensor<15xf32>, %i: tensor<i32>) -> tensor<15xf32> {
    %0 = stablehlo.tanh %x : tensor<15xf32>
    %1 = "stablehlo.case"(%i) ({
      %5 = stablehlo.multiply %0, %x : tensor<15xf32>
      stablehlo.return %5 : tensor<15xf32>
    }, {
      stablehlo.return %0 : tensor<15xf32>
    }) : (tensor<i32>) -> tensor<15xf32>
    %2 = stablehlo.cosine %1 : tensor<15xf32>
    %3 = "stablehlo.case"(%i) ({
      %5 = stablehlo.multiply %2, %x : tensor<15xf32>
      stablehlo.return %5 : tensor<15xf32>
    }, {
      stablehlo.return %2 : tensor<15xf32>
    }) : (tensor<i32>) -> tensor<15xf32>
    %4 = stablehlo.multiply %3, %0 : tensor<15xf32>
    return %4 : tensor<15xf32>
  }
}
