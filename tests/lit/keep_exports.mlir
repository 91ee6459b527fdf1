// RUN: %sonew-opt --pass keep-exports:names=eval_step+predict %s | FileCheck %s
// RUN: not %sonew-opt --pass keep-exports:names=helper %s 2>&1 | FileCheck %s --check-prefix=PRIVATE

// Two exports are left, with what they call and with their attributes.

// PRIVATE: sonew_opt: keep-exports: no export 'helper'; the exports are: init, train_step, eval_step, predict

// CHECK-LABEL: module @sonew {
module @sonew {
  // CHECK-NOT: @init
  func.func public @init(%seed: tensor<f32>) -> tensor<f32> {
    return %seed : tensor<f32>
  }
  // CHECK: func.func private @train_step(
  func.func public @train_step(%w: tensor<f32>) -> tensor<f32> {
    %0 = func.call @update(%w) : (tensor<f32>) -> tensor<f32>
    return %0 : tensor<f32>
  }
  // CHECK: func.func public @eval_step(%arg0: tensor<f32> {sonew.name = "w"}) -> tensor<f32> {
  // CHECK-NEXT: call @helper(%arg0)
  func.func public @eval_step(%w: tensor<f32> {sonew.name = "w"}) -> tensor<f32> {
    %0 = func.call @helper(%w) : (tensor<f32>) -> tensor<f32>
    return %0 : tensor<f32>
  }
  // CHECK: func.func public @predict(
  func.func public @predict(%w: tensor<f32>) -> tensor<f32> {
    %0 = func.call @train_step(%w) : (tensor<f32>) -> tensor<f32>
    return %0 : tensor<f32>
  }
  // CHECK: func.func private @update(
  func.func private @update(%w: tensor<f32>) -> tensor<f32> {
    return %w : tensor<f32>
  }
  // CHECK: func.func private @helper(
  func.func private @helper(%w: tensor<f32>) -> tensor<f32> {
    return %w : tensor<f32>
  }
  // CHECK-NOT: @unused
  func.func private @unused(%w: tensor<f32>) -> tensor<f32> {
    return %w : tensor<f32>
  }
}
