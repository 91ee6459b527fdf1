// The loop's body does not read %v, the last that it carries: the compiler crashes.
module @sonew {
  func.func public @main(%n: tensor<i32>, %x: tensor<4xf32>, %y: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
    %one = stablehlo.constant dense<1> : tensor<i32>
    %zero = stablehlo.constant dense<0> : tensor<i32>
    %0:3 = stablehlo.while(%k = %n, %u = %x, %v = %y) : tensor<i32>, tensor<4xf32>, tensor<4xf32>
    cond {
      %1 = stablehlo.compare GT, %k, %zero : (tensor<i32>, tensor<i32>) -> tensor<i1>
      stablehlo.return %1 : tensor<i1>
    } do {
      %1 = stablehlo.subtract %k, %one : tensor<i32>
      %2 = stablehlo.sine %u : tensor<4xf32>
      stablehlo.return %1, %2, %u : tensor<i32>, tensor<4xf32>, tensor<4xf32>
    }
    return %0#1, %0#2 : tensor<4xf32>, tensor<4xf32>
  }
}
