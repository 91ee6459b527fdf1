// RUN: %sonew-opt --pass stream-rows:elements=16,lanes=8,bypass=2560 %s | FileCheck %s

// A result of so many bytes leaves the caches out, in stores of half a line; one that is overwritten was loaded anyway.
// CHECK-LABEL:     func.func @rows_0_40x16(
// CHECK:             "stream.binding.subspan"(%arg1
// CHECK-NEXT:        [[X:%.+]] = "stream.binding.subspan"(%arg0
// CHECK-NEXT:        [[Y:%.+]] = "stream.binding.subspan"(%arg2
// CHECK:             vector.store {{%.+}}, [[X]][{{%.+}}] : memref<640xf32>, vector<8xf32>
// CHECK-NEXT:        vector.store {{%.+}}, [[Y]][{{%.+}}] {alignment = 32 : i64, nontemporal = true} : memref<640xf32>, vector<8xf32>
// CHECK-NOT:         nontemporal

// Rows that do not begin with a line are stored as ever, and so is what is smaller.
// CHECK-LABEL:     func.func @rows_1_60x11(
// CHECK-NOT:         nontemporal
// CHECK-LABEL:     func.func @rows_2_30x16(
// CHECK-NOT:         nontemporal
// CHECK-LABEL:     func.func public @step
func.func public @step(%x: tensor<40x16xf32> {sonew.name = "x", tf.aliasing_output = 1 : i32}, %y: tensor<40x16xf32> {sonew.name = "y"}) -> (tensor<40x16xf32>, tensor<40x16xf32>) {
  %fill = stablehlo.constant dense<0.0> : tensor<1x16xf32>
  %0 = stablehlo.slice %y [1:40, 0:16] : (tensor<40x16xf32>) -> tensor<39x16xf32>
  %1 = stablehlo.concatenate %0, %fill, dim = 0 : (tensor<39x16xf32>, tensor<1x16xf32>) -> tensor<40x16xf32>
  %2 = stablehlo.add %x, %1 : tensor<40x16xf32>
  %3 = stablehlo.multiply %2, %y : tensor<40x16xf32>
  return %3, %2 : tensor<40x16xf32>, tensor<40x16xf32>
}

func.func public @other(%x: tensor<60x11xf32> {sonew.name = "x"}, %y: tensor<30x16xf32> {sonew.name = "y"}) -> (tensor<60x11xf32>, tensor<30x16xf32>) {
  %fill = stablehlo.constant dense<0.0> : tensor<1x11xf32>
  %0 = stablehlo.slice %x [1:60, 0:11] : (tensor<60x11xf32>) -> tensor<59x11xf32>
  %1 = stablehlo.concatenate %0, %fill, dim = 0 : (tensor<59x11xf32>, tensor<1x11xf32>) -> tensor<60x11xf32>
  %2 = stablehlo.add %x, %1 : tensor<60x11xf32>
  %fill_1 = stablehlo.constant dense<0.0> : tensor<1x16xf32>
  %3 = stablehlo.slice %y [1:30, 0:16] : (tensor<30x16xf32>) -> tensor<29x16xf32>
  %4 = stablehlo.concatenate %3, %fill_1, dim = 0 : (tensor<29x16xf32>, tensor<1x16xf32>) -> tensor<30x16xf32>
  %5 = stablehlo.add %y, %4 : tensor<30x16xf32>
  return %2, %5 : tensor<60x11xf32>, tensor<30x16xf32>
}
