// RUN: %sonew-opt --pass lower-storage --pass use-stored %s | FileCheck %s
// RUN: %sonew-opt --pass lower-storage --pass use-stored --pass emulate-rounding %s | FileCheck %s --check-prefix=BITS

// The new momentum is rounded where it is made, and the parameters move by what is stored of it.
// CHECK-LABEL: func.func public @train_step
// CHECK:         %[[W:.*]] = stablehlo.convert %arg0 : (tensor<4xbf16>) -> tensor<4xf32>
// CHECK:         %[[M:.*]] = stablehlo.convert %arg1 : (tensor<4xbf16>) -> tensor<4xf32>
// CHECK-NEXT:    %[[NEW:.*]] = stablehlo.add %[[M]], %arg2 : tensor<4xf32>
// CHECK-NEXT:    %[[STORED:.*]] = stablehlo.convert %[[NEW]] : (tensor<4xf32>) -> tensor<4xbf16>
// CHECK-NEXT:    %[[USED:.*]] = stablehlo.convert %[[STORED]] : (tensor<4xbf16>) -> tensor<4xf32>
// CHECK-NEXT:    %[[MOVED:.*]] = stablehlo.subtract %[[W]], %[[USED]] : tensor<4xf32>
// CHECK-NEXT:    %[[LEFT:.*]] = stablehlo.convert %[[MOVED]] : (tensor<4xf32>) -> tensor<4xbf16>
// CHECK-NEXT:    return %[[LEFT]], %[[STORED]]

// On processors the rounding is done on the bits. What is stored is the half of them that is left, and is widened again.
// BITS-LABEL: func.func public @train_step
// BITS:         %[[HALF:.*]] = stablehlo.convert %{{.*}} : (tensor<4xui32>) -> tensor<4xui16>
// BITS-NEXT:    %[[STORED:.*]] = stablehlo.bitcast_convert %[[HALF]] : (tensor<4xui16>) -> tensor<4xbf16>
// BITS-NEXT:    %[[USED:.*]] = stablehlo.convert %[[STORED]] : (tensor<4xbf16>) -> tensor<4xf32>
// BITS-NEXT:    stablehlo.subtract %{{.*}}, %[[USED]]
// BITS:         return %{{.*}}, %[[STORED]]
func.func private @update(%w: tensor<4xf32>, %m: tensor<4xf32>, %x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %0 = stablehlo.add %m, %x : tensor<4xf32>
  %1 = stablehlo.subtract %w, %0 : tensor<4xf32>
  return %1, %0 : tensor<4xf32>, tensor<4xf32>
}
func.func public @train_step(
    %w: tensor<4xf32> {sonew.donate, sonew.name = "params/w", sonew.role = "parameter"},
    %m: tensor<4xf32> {sonew.name = "optimizer/m", sonew.role = "optimizer"},
    %x: tensor<4xf32> {sonew.name = "batch/x"})
    -> (tensor<4xf32> {sonew.name = "params/w", sonew.role = "parameter"},
        tensor<4xf32> {sonew.name = "optimizer/m", sonew.role = "optimizer"}) {
  %0:2 = call @update(%w, %m, %x)
      : (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>)
  return %0#0, %0#1 : tensor<4xf32>, tensor<4xf32>
}

// What nothing else reads is rounded as it leaves, and what is no float stays.
// CHECK-LABEL: func.func public @apart
// CHECK:         %[[SUM:.*]] = stablehlo.add
// CHECK-NEXT:    %[[STORED:.*]] = stablehlo.convert %[[SUM]]
// CHECK-NEXT:    return %[[STORED]], %arg1
func.func public @apart(%m: tensor<4xf32> {sonew.role = "optimizer"}, %n: tensor<i32> {sonew.role = "optimizer"})
    -> (tensor<4xf32> {sonew.role = "optimizer"}, tensor<i32> {sonew.role = "optimizer"}) {
  %0 = stablehlo.add %m, %m : tensor<4xf32>
  return %0, %n : tensor<4xf32>, tensor<i32>
}
