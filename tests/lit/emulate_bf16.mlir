// RUN: %sonew-opt --pass emulate-bf16 %s | FileCheck %s

// Outside, pairs in integers of 32 bits, taken apart and put together behind barriers; inside, float32. What is rounded
// is rounded by integer arithmetic; what was bf16 already is only cut.
// CHECK-LABEL: func.func public @step
// CHECK-SAME:    %arg0: tensor<2xui32> {sonew.name = "w"}
// CHECK-SAME:    %arg1: tensor<4xf32> {sonew.name = "x"}
// CHECK-SAME:    -> (tensor<4xui32> {sonew.name = "w"}, tensor<2xui32>
// CHECK-NEXT:    [[BOTH:%.+]] = stablehlo.broadcast_in_dim %arg0, dims = [0] : (tensor<2xui32>) -> tensor<2x2xui32>
// CHECK:         [[WHICH:%.+]] = stablehlo.iota dim = 1 : tensor<2x2xui32>
// CHECK:         [[FIRST:%.+]] = stablehlo.compare EQ, [[WHICH]]
// CHECK:         [[LOW:%.+]] = stablehlo.shift_left [[BOTH]]
// CHECK:         [[HIGH:%.+]] = stablehlo.and [[BOTH]]
// CHECK-NEXT:    [[BITS:%.+]] = stablehlo.select [[FIRST]], [[LOW]], [[HIGH]]
// CHECK-NEXT:    [[FLOATS:%.+]] = stablehlo.bitcast_convert [[BITS]] : (tensor<2x2xui32>) -> tensor<2x2xf32>
// CHECK-NEXT:    [[FLAT:%.+]] = stablehlo.reshape [[FLOATS]] : (tensor<2x2xf32>) -> tensor<4xf32>
// CHECK-NEXT:    [[W:%.+]] = stablehlo.optimization_barrier [[FLAT]] : tensor<4xf32>
// CHECK-NEXT:    [[SUM:%.+]] = stablehlo.add [[W]], %arg1 : tensor<4xf32>
// CHECK:         stablehlo.and
// CHECK-NOT:     bf16
// CHECK:         [[HELPED:%.+]] = call @helper({{%.+}}) : (tensor<4xf32>) -> tensor<2x4xf32>
// CHECK:         [[ONE:%.+]] = stablehlo.constant dense<1.000000e+00> : tensor<4xf32>
// CHECK-NEXT:    [[OUT:%.+]]:2 = stablehlo.optimization_barrier [[HELPED]], [[ONE]]
// CHECK:         stablehlo.bitcast_convert [[OUT]]#0
// CHECK:         stablehlo.reshape {{%.+}} -> tensor<4x2xui32>
// CHECK:         stablehlo.shift_right_logical
// CHECK:         stablehlo.reduce({{.+}}) applies stablehlo.or across dimensions = [1] : (tensor<4x2xui32>, tensor<ui32>) -> tensor<4xui32>
// CHECK:         stablehlo.reduce({{.+}}) applies stablehlo.or across dimensions = [1] : (tensor<2x2xui32>, tensor<ui32>) -> tensor<2xui32>
// CHECK:       func.func private @helper(%arg0: tensor<4xf32>) -> tensor<2x4xf32>
// CHECK-NEXT:    stablehlo.broadcast_in_dim %arg0, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
func.func public @step(
    %w: tensor<4xbf16> {sonew.name = "w"}, %x: tensor<4xf32> {sonew.name = "x"})
    -> (tensor<2x4xbf16> {sonew.name = "w"}, tensor<4xbf16> {sonew.name = "one"}) {
  %0 = stablehlo.convert %w : (tensor<4xbf16>) -> tensor<4xf32>
  %1 = stablehlo.add %0, %x : tensor<4xf32>
  %2 = stablehlo.convert %1 : (tensor<4xf32>) -> tensor<4xbf16>
  %3 = func.call @helper(%2) : (tensor<4xbf16>) -> tensor<2x4xbf16>
  %one = stablehlo.constant dense<1.0> : tensor<4xbf16>
  return %3, %one : tensor<2x4xbf16>, tensor<4xbf16>
}

func.func private @helper(%w: tensor<4xbf16>) -> tensor<2x4xbf16> {
  %0 = stablehlo.broadcast_in_dim %w, dims = [1] : (tensor<4xbf16>) -> tensor<2x4xbf16>
  return %0 : tensor<2x4xbf16>
}

// Bits that become a number are widened alike, and a tensor of 16-bit integers stays one.
// CHECK-LABEL: func.func public @bits
// CHECK-SAME:    %arg0: tensor<4xui16> {sonew.name = "n"}
// CHECK-NEXT:    [[WIDE:%.+]] = stablehlo.convert %arg0 : (tensor<4xui16>) -> tensor<4xui32>
// CHECK:         stablehlo.shift_left [[WIDE]]
// CHECK:         stablehlo.convert %arg0 : (tensor<4xui16>) -> tensor<4xf32>
// CHECK-NOT:     bf16
func.func public @bits(%n: tensor<4xui16> {sonew.name = "n"})
    -> (tensor<4xbf16> {sonew.name = "number"}, tensor<4xf32> {sonew.name = "count"}) {
  %0 = stablehlo.bitcast_convert %n : (tensor<4xui16>) -> tensor<4xbf16>
  %1 = stablehlo.convert %n : (tensor<4xui16>) -> tensor<4xf32>
  return %0, %1 : tensor<4xbf16>, tensor<4xf32>
}

// An odd number has zeros beside the last.
// CHECK-LABEL: func.func public @odd
// CHECK-SAME:    %arg0: tensor<2xui32>
// CHECK-SAME:    -> (tensor<2xui32>
// CHECK:         stablehlo.slice {{%.+}} [0:3] : (tensor<4xf32>) -> tensor<3xf32>
// CHECK:         [[BITS:%.+]] = stablehlo.bitcast_convert {{%.+}} : (tensor<3xf32>) -> tensor<3xui32>
// CHECK:         [[ZERO:%.+]] = stablehlo.constant dense<0> : tensor<1xui32>
// CHECK-NEXT:    stablehlo.concatenate [[BITS]], [[ZERO]], dim = 0
func.func public @odd(%w: tensor<3xbf16> {sonew.name = "w"}) -> (tensor<3xbf16> {sonew.name = "w"}) {
  return %w : tensor<3xbf16>
}
