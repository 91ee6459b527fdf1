// RUN: %sonew-opt --pass select-export:name=step %s | FileCheck %s
// RUN: not %sonew-opt --pass select-export:name=helper %s 2>&1 | FileCheck %s --check-prefix=PRIVATE
// RUN: not %sonew-opt --pass select-export %s 2>&1 | FileCheck %s --check-prefix=ABSENT

// One export is left, with what it calls: another export among that, and none of its names and donations.

// PRIVATE: sonew_opt: select-export: no export 'helper'; the exports are: init, step
// ABSENT: sonew_opt: select-export: no export 'main'; the exports are: init, step

// CHECK-LABEL: module @sonew {
module @sonew {
  // CHECK-NEXT: func.func private @init(%arg0: tensor<f32> {sonew.name = "seed"}) -> tensor<f32>
  func.func public @init(%seed: tensor<f32> {sonew.name = "seed"}) -> tensor<f32> {
    %0 = stablehlo.sine %seed : tensor<f32>
    return %0 : tensor<f32>
  }
  // CHECK: func.func public @main(%arg0: tensor<f32>) -> tensor<f32> {
  // CHECK-NEXT: call @helper(%arg0)
  func.func public @step(%w: tensor<f32> {sonew.name = "w", tf.aliasing_output = 0 : i32})
      -> (tensor<f32> {sonew.name = "w"}) {
    %0 = func.call @helper(%w) : (tensor<f32>) -> tensor<f32>
    return %0 : tensor<f32>
  }
  // CHECK: func.func private @helper(
  // CHECK-NEXT: call @init(
  func.func private @helper(%w: tensor<f32>) -> tensor<f32> {
    %0 = func.call @init(%w) : (tensor<f32>) -> tensor<f32>
    return %0 : tensor<f32>
  }
  // CHECK-NOT: @unused
  func.func private @unused(%w: tensor<f32>) -> tensor<f32> {
    return %w : tensor<f32>
  }
}
