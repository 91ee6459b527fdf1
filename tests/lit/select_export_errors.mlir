// RUN: not %sonew-opt --pass select-export:name=step %s 2>&1 | FileCheck %s

// CHECK: sonew_opt: select-export: @step is to be called @main, but another function is
func.func public @step(%w: tensor<f32>) -> tensor<f32> {
  return %w : tensor<f32>
}
func.func private @main(%w: tensor<f32>) -> tensor<f32> {
  return %w : tensor<f32>
}
