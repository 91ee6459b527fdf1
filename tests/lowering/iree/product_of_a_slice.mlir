// A product of half of a matrix: the slice is made on the stack, whole.
func.func public @f(%x: tensor<64x784xf32>, %w: tensor<392x64xf32>) -> tensor<64x64xf32> {
  %0 = stablehlo.slice %x [0:64, 0:392] : (tensor<64x784xf32>) -> tensor<64x392xf32>
  %1 = stablehlo.dot_general %0, %w, contracting_dims = [1] x [0] : (tensor<64x392xf32>, tensor<392x64xf32>) -> tensor<64x64xf32>
  return %1 : tensor<64x64xf32>
}
