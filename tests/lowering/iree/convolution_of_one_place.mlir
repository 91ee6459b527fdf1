// A strided convolution with one place, which does not reach the end of its input: IREE makes an operation of it whose
// input is too long. The verifier says so; without it the code has wrong numbers. `trim-windows` cuts the input first.
func.func @f(%x: tensor<1x4x3xf32>, %k: tensor<3x3x2xf32>) -> tensor<1x1x2xf32> {
  %y = stablehlo.convolution(%x, %k) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {stride = [2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x4x3xf32>, tensor<3x3x2xf32>) -> tensor<1x1x2xf32>
  return %y : tensor<1x1x2xf32>
}
