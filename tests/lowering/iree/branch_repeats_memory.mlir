// The first branch gives five arrays, which are parts of one piece of memory; the second hands five through: "ref is null".
module @sonew {
  func.func public @main(%i: tensor<i32>, %a: tensor<3xf32>, %b: tensor<5xf32>, %c: tensor<3xf32>, %d: tensor<5xf32>,
      %e: tensor<i32>)
      -> (tensor<3xf32>, tensor<5xf32>, tensor<3xf32>, tensor<5xf32>, tensor<i32>, tensor<3xf32>, tensor<5xf32>) {
    %0:7 = "stablehlo.case"(%i) ({
      %1 = stablehlo.sine %a : tensor<3xf32>
      %2 = stablehlo.sine %b : tensor<5xf32>
      %3 = stablehlo.sine %c : tensor<3xf32>
      %4 = stablehlo.sine %d : tensor<5xf32>
      %5 = stablehlo.add %e, %e : tensor<i32>
      %6 = stablehlo.cosine %a : tensor<3xf32>
      %7 = stablehlo.cosine %b : tensor<5xf32>
      stablehlo.return %1, %2, %3, %4, %5, %6, %7
          : tensor<3xf32>, tensor<5xf32>, tensor<3xf32>, tensor<5xf32>, tensor<i32>, tensor<3xf32>, tensor<5xf32>
    }, {
      %1 = stablehlo.constant dense<0.0> : tensor<3xf32>
      %2 = stablehlo.constant dense<0.0> : tensor<5xf32>
      stablehlo.return %a, %b, %c, %d, %e, %1, %2
          : tensor<3xf32>, tensor<5xf32>, tensor<3xf32>, tensor<5xf32>, tensor<i32>, tensor<3xf32>, tensor<5xf32>
    }) : (tensor<i32>)
      -> (tensor<3xf32>, tensor<5xf32>, tensor<3xf32>, tensor<5xf32>, tensor<i32>, tensor<3xf32>, tensor<5xf32>)
    return %0#0, %0#1, %0#2, %0#3, %0#4, %0#5, %0#6
        : tensor<3xf32>, tensor<5xf32>, tensor<3xf32>, tensor<5xf32>, tensor<i32>, tensor<3xf32>, tensor<5xf32>
  }
}
