// RUN: %sonew-opt --pass wire-donation %s | FileCheck %s

// Only an argument that nothing reads but the element-wise computation of its own result can be overwritten: IREE does
// not wait for other readers. The others get a new buffer, or the one that XLA chooses.

// CHECK-LABEL: func.func public @moment
// CHECK-SAME:    %arg0: tensor<4xf32> {sonew.name = "m", tf.aliasing_output = 1 : i32}
// CHECK-SAME:    %arg1: tensor<4xf32> {sonew.name = "g"}
// The result may be read, the argument may be another shape of it.
func.func public @moment(%m: tensor<4xf32> {sonew.donate, sonew.name = "m"}, %g: tensor<4xf32> {sonew.name = "g"})
    -> (tensor<f32> {sonew.name = "loss"}, tensor<4xf32> {sonew.name = "m"}) {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = stablehlo.reshape %m : (tensor<4xf32>) -> tensor<2x2xf32>
  %1 = stablehlo.reshape %g : (tensor<4xf32>) -> tensor<2x2xf32>
  %2 = stablehlo.add %0, %1 : tensor<2x2xf32>
  %3 = stablehlo.reduce(%2 init: %zero) applies stablehlo.add across dimensions = [0, 1]
    : (tensor<2x2xf32>, tensor<f32>) -> tensor<f32>
  %4 = stablehlo.reshape %2 : (tensor<2x2xf32>) -> tensor<4xf32>
  return %3, %4 : tensor<f32>, tensor<4xf32>
}

// CHECK-LABEL: func.func public @weight
// CHECK-SAME:    %arg0: tensor<4x4xf32> {jax.buffer_donor = true, sonew.name = "w"}
func.func public @weight(%w: tensor<4x4xf32> {sonew.donate, sonew.name = "w"}, %x: tensor<4x4xf32>)
    -> (tensor<4x4xf32> {sonew.name = "w"}, tensor<4x4xf32> {sonew.name = "y"}) {
  %y = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
    : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %0 = stablehlo.add %w, %x : tensor<4x4xf32>
  return %0, %y : tensor<4x4xf32>, tensor<4x4xf32>
}

// CHECK-LABEL: func.func public @swap
// CHECK-SAME:    %arg0: tensor<4xf32> {jax.buffer_donor = true, sonew.name = "a"}
// CHECK-SAME:    %arg1: tensor<4xf32> {jax.buffer_donor = true, sonew.name = "b"}
func.func public @swap(%a: tensor<4xf32> {sonew.donate, sonew.name = "a"},
                       %b: tensor<4xf32> {sonew.donate, sonew.name = "b"})
    -> (tensor<4xf32> {sonew.name = "a"}, tensor<4xf32> {sonew.name = "b"}) {
  %0 = stablehlo.abs %b : tensor<4xf32>
  %1 = stablehlo.negate %a : tensor<4xf32>
  return %0, %1 : tensor<4xf32>, tensor<4xf32>
}

// Element for element, but not at the same place.
// CHECK-LABEL: func.func public @reversed
// CHECK-SAME:    %arg0: tensor<4xf32> {jax.buffer_donor = true, sonew.name = "a"}
func.func public @reversed(%a: tensor<4xf32> {sonew.donate, sonew.name = "a"})
    -> (tensor<4xf32> {sonew.name = "a"}) {
  %0 = stablehlo.reverse %a, dims = [0] : tensor<4xf32>
  return %0 : tensor<4xf32>
}

// One value cannot be in two buffers and computed in one of them.
// CHECK-LABEL: func.func public @twice
// CHECK-SAME:    %arg0: tensor<4xf32> {jax.buffer_donor = true, sonew.name = "a"}
func.func public @twice(%a: tensor<4xf32> {sonew.donate, sonew.name = "a"})
    -> (tensor<4xf32> {sonew.name = "a"}, tensor<4xf32> {sonew.name = "copy"}) {
  %0 = stablehlo.negate %a : tensor<4xf32>
  return %0, %0 : tensor<4xf32>, tensor<4xf32>
}

// Calls are looked into.
// CHECK-LABEL: func.func public @through_calls
// CHECK-SAME:    %arg0: tensor<i32> {sonew.name = "count", tf.aliasing_output = 0 : i32}
// CHECK-SAME:    %arg1: tensor<4xf32> {sonew.name = "m", tf.aliasing_output = 1 : i32}
// CHECK-SAME:    %arg2: tensor<4xf32> {jax.buffer_donor = true, sonew.name = "a"}
func.func public @through_calls(%count: tensor<i32> {sonew.donate, sonew.name = "count"},
                                %m: tensor<4xf32> {sonew.donate, sonew.name = "m"},
                                %a: tensor<4xf32> {sonew.donate, sonew.name = "a"})
    -> (tensor<i32> {sonew.name = "count"}, tensor<4xf32> {sonew.name = "m"}, tensor<4xf32> {sonew.name = "a"}) {
  %0 = func.call @next(%count) : (tensor<i32>) -> tensor<i32>
  %1, %2 = func.call @update(%m, %a) : (tensor<4xf32>, tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>)
  return %0, %1, %2 : tensor<i32>, tensor<4xf32>, tensor<4xf32>
}
func.func private @next(%count: tensor<i32>) -> tensor<i32> {
  %one = stablehlo.constant dense<1> : tensor<i32>
  %0 = stablehlo.add %count, %one : tensor<i32>
  return %0 : tensor<i32>
}
// The new moment is read again, the argument behind it is not.
func.func private @update(%m: tensor<4xf32>, %a: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %0 = func.call @halve(%m) : (tensor<4xf32>) -> tensor<4xf32>
  %1 = stablehlo.reverse %0, dims = [0] : tensor<4xf32>
  %2 = stablehlo.reverse %a, dims = [0] : tensor<4xf32>
  %3 = stablehlo.add %1, %2 : tensor<4xf32>
  return %0, %3 : tensor<4xf32>, tensor<4xf32>
}
func.func private @halve(%x: tensor<4xf32>) -> tensor<4xf32> {
  %half = stablehlo.constant dense<0.5> : tensor<4xf32>
  %0 = stablehlo.multiply %x, %half : tensor<4xf32>
  return %0 : tensor<4xf32>
}
