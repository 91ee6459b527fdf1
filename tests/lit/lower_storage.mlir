// RUN: %sonew-opt --pass lower-storage %s | FileCheck %s
// RUN: %sonew-opt --pass lower-storage:dtype=f16,roles=parameter %s | FileCheck %s --check-prefix=PART

// The state enters and leaves in 16 bits; what is computed, and what is no state, stays as it is.
// CHECK-LABEL: func.func public @train_step
// CHECK-SAME:    %arg0: tensor<4xbf16> {sonew.donate, sonew.name = "params/w", sonew.role = "parameter"}
// CHECK-SAME:    %arg1: tensor<4xbf16> {sonew.name = "optimizer/m", sonew.role = "optimizer"}
// CHECK-SAME:    %arg2: tensor<i32> {sonew.name = "optimizer/count", sonew.role = "optimizer"}
// CHECK-SAME:    %arg3: tensor<4xf32> {sonew.name = "batch/x"}
// CHECK-SAME:    -> (tensor<4xbf16> {sonew.name = "params/w", sonew.role = "parameter"}, tensor<4xbf16>
// CHECK-NEXT:    %0 = stablehlo.convert %arg0 : (tensor<4xbf16>) -> tensor<4xf32>
// CHECK-NEXT:    %1 = stablehlo.convert %arg1 : (tensor<4xbf16>) -> tensor<4xf32>
// CHECK-NEXT:    %2 = stablehlo.add %1, %arg3 : tensor<4xf32>
// CHECK-NEXT:    %3 = stablehlo.subtract %0, %2 : tensor<4xf32>
// CHECK-NEXT:    %4 = stablehlo.convert %3 : (tensor<4xf32>) -> tensor<4xbf16>
// CHECK-NEXT:    %5 = stablehlo.convert %2 : (tensor<4xf32>) -> tensor<4xbf16>
// CHECK-NEXT:    return %4, %5, %arg2
// PART-LABEL:  func.func public @train_step
// PART-SAME:     %arg0: tensor<4xf16>
// PART-SAME:     %arg1: tensor<4xf32>
func.func public @train_step(
    %w: tensor<4xf32> {sonew.donate, sonew.name = "params/w", sonew.role = "parameter"},
    %m: tensor<4xf32> {sonew.name = "optimizer/m", sonew.role = "optimizer"},
    %n: tensor<i32> {sonew.name = "optimizer/count", sonew.role = "optimizer"},
    %x: tensor<4xf32> {sonew.name = "batch/x"})
    -> (tensor<4xf32> {sonew.name = "params/w", sonew.role = "parameter"},
        tensor<4xf32> {sonew.name = "optimizer/m", sonew.role = "optimizer"},
        tensor<i32> {sonew.name = "optimizer/count", sonew.role = "optimizer"}) {
  %0 = stablehlo.add %m, %x : tensor<4xf32>
  %1 = stablehlo.subtract %w, %0 : tensor<4xf32>
  return %1, %0, %n : tensor<4xf32>, tensor<4xf32>, tensor<i32>
}

// What passes through unchanged is not converted.
// CHECK-LABEL: func.func public @same
// CHECK:         return %arg0 : tensor<4xbf16>
func.func public @same(%w: tensor<4xf32> {sonew.role = "parameter"}) -> (tensor<4xf32> {sonew.role = "parameter"}) {
  return %w : tensor<4xf32>
}

// RUN: not %sonew-opt --pass lower-storage:dtype=f8 %s 2>&1 | FileCheck %s --check-prefix=DTYPE
// DTYPE: sonew_opt: pass lower-storage: 'f8' is no value for dtype: give bf16 or f16
// RUN: not %sonew-opt --pass lower-storage:roles=weights %s 2>&1 | FileCheck %s --check-prefix=ROLES
// ROLES: sonew_opt: pass lower-storage: 'weights' is no value for roles: give parameter+optimizer or one of them
