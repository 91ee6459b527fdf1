// RUN: %sonew-opt --pass merge-exports %s | FileCheck %s

// Helpers of the same name stay apart, calls follow them, a name that is taken is avoided.

// CHECK-LABEL: module @sonew {
// CHECK-NOT: mhlo
module @anything {
  // CHECK: func.func public @init(%arg0: tensor<i32> {sonew.name = "seed"}) -> tensor<f32>
  // CHECK:   call @init__helper(%arg0)
  // CHECK: func.func private @init__helper(%arg0: tensor<i32>) -> tensor<f32>
  // CHECK:   stablehlo.convert
  module @init attributes {mhlo.num_partitions = 1 : i32, mhlo.num_replicas = 1 : i32} {
    func.func public @main(%seed: tensor<i32> {sonew.name = "seed"}) -> tensor<f32> {
      %0 = func.call @helper(%seed) : (tensor<i32>) -> tensor<f32>
      return %0 : tensor<f32>
    }
    func.func private @helper(%seed: tensor<i32>) -> tensor<f32> {
      %0 = stablehlo.convert %seed : (tensor<i32>) -> tensor<f32>
      return %0 : tensor<f32>
    }
  }

  // CHECK: func.func public @step(
  // CHECK:   call @step__step__helper(
  // CHECK:   call @step__step(
  // CHECK:   call @step__helper_0(
  // CHECK: func.func private @step__step__helper(
  // CHECK:   stablehlo.sine
  // CHECK: func.func private @step__step(
  // CHECK:   stablehlo.cosine
  // CHECK: func.func private @step__helper_0(
  // CHECK:   stablehlo.tan
  module @step attributes {mhlo.num_partitions = 1 : i32, mhlo.num_replicas = 1 : i32} {
    func.func public @main(%x: tensor<f32>) -> tensor<f32> {
      %0 = func.call @step__helper(%x) : (tensor<f32>) -> tensor<f32>
      %1 = func.call @step(%0) : (tensor<f32>) -> tensor<f32>
      %2 = func.call @helper(%1) : (tensor<f32>) -> tensor<f32>
      return %2 : tensor<f32>
    }
    func.func private @step__helper(%x: tensor<f32>) -> tensor<f32> {
      %0 = stablehlo.sine %x : tensor<f32>
      return %0 : tensor<f32>
    }
    func.func private @step(%x: tensor<f32>) -> tensor<f32> {
      %0 = stablehlo.cosine %x : tensor<f32>
      return %0 : tensor<f32>
    }
    func.func private @helper(%x: tensor<f32>) -> tensor<f32> {
      %0 = stablehlo.tan %x : tensor<f32>
      return %0 : tensor<f32>
    }
  }
}
