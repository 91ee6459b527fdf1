// RUN: %sonew-opt --pass emulate-bf16 %s | FileCheck %s

// Outside, integers of the same bits, widened and cut behind barriers; inside, float32. What is rounded is rounded by
// integer arithmetic; what was bf16 already is only cut.
// CHECK-LABEL: func.func public @step
// CHECK-SAME:    %arg0: tensor<4xui16> {sonew.name = "w"}
// CHECK-SAME:    %arg1: tensor<4xf32> {sonew.name = "x"}
// CHECK-SAME:    -> (tensor<2x4xui16> {sonew.name = "w"}, tensor<4xui16>
// CHECK-NEXT:    [[BITS:%.+]] = stablehlo.convert %arg0 : (tensor<4xui16>) -> tensor<4xui32>
// CHECK:         [[UP:%.+]] = stablehlo.shift_left [[BITS]]
// CHECK-NEXT:    [[FLOAT:%.+]] = stablehlo.bitcast_convert [[UP]] : (tensor<4xui32>) -> tensor<4xf32>
// CHECK-NEXT:    [[W:%.+]] = stablehlo.optimization_barrier [[FLOAT]] : tensor<4xf32>
// CHECK-NEXT:    [[SUM:%.+]] = stablehlo.add [[W]], %arg1 : tensor<4xf32>
// CHECK:         stablehlo.and
// CHECK-NOT:     bf16
// CHECK:         [[HELPED:%.+]] = call @helper({{%.+}}) : (tensor<4xf32>) -> tensor<2x4xf32>
// CHECK:         [[ONE:%.+]] = stablehlo.constant dense<1.000000e+00> : tensor<4xf32>
// CHECK-NEXT:    [[OUT:%.+]]:2 = stablehlo.optimization_barrier [[HELPED]], [[ONE]]
// CHECK:         stablehlo.bitcast_convert [[OUT]]#0
// CHECK:         stablehlo.shift_right_logical
// CHECK:         stablehlo.convert {{%.+}} : (tensor<2x4xui32>) -> tensor<2x4xui16>
// CHECK:         stablehlo.convert {{%.+}} : (tensor<4xui32>) -> tensor<4xui16>
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
