// RUN: %sonew-opt --pass retype %s | FileCheck %s
// RUN: %sonew-opt --pass retype --pass emulate-arithmetic %s | FileCheck %s --check-prefix=EMULATED

// Tensors are narrow, scalars are not; sums accumulate in float32.
// CHECK-LABEL:    func.func public @step(%arg0: tensor<4xf32>, %arg1: tensor<f32>) -> (tensor<4xf32>, tensor<f32>)
// CHECK-NEXT:       %0 = stablehlo.convert %arg0 : (tensor<4xf32>) -> tensor<4xbf16>
// CHECK-NEXT:       %1 = stablehlo.multiply %0, %0 : tensor<4xbf16>
// CHECK-NEXT:       %2 = stablehlo.convert %1 : (tensor<4xbf16>) -> tensor<4xf32>
// CHECK-NEXT:       %cst = stablehlo.constant dense<0.000000e+00> : tensor<f32>
// CHECK-NEXT:       %3 = stablehlo.reduce(%2 init: %cst) applies stablehlo.add
// CHECK-NEXT:       %4 = stablehlo.multiply %3, %arg1 : tensor<f32>
// CHECK-NEXT:       %5 = stablehlo.convert %4 : (tensor<f32>) -> tensor<bf16>
// CHECK-NEXT:       %6 = stablehlo.broadcast_in_dim %5, dims = [] : (tensor<bf16>) -> tensor<4xbf16>
// CHECK-NEXT:       %cst_0 = stablehlo.constant dense<1.000980e-01> : tensor<4xbf16>
// CHECK-NEXT:       %7 = call @helper(%6, %cst_0) : (tensor<4xbf16>, tensor<4xbf16>) -> tensor<4xbf16>
// CHECK-NEXT:       %8 = stablehlo.convert %7 : (tensor<4xbf16>) -> tensor<4xf32>
// CHECK-NEXT:       return %8, %4
// EMULATED-LABEL: func.func public @step
// EMULATED:         %1 = stablehlo.convert %0 : (tensor<4xbf16>) -> tensor<4xf32>
// EMULATED-NEXT:    %2 = stablehlo.convert %0 : (tensor<4xbf16>) -> tensor<4xf32>
// EMULATED-NEXT:    %3 = stablehlo.multiply %1, %2 : tensor<4xf32>
// EMULATED-NEXT:    %4 = stablehlo.convert %3 : (tensor<4xf32>) -> tensor<4xbf16>
func.func public @step(%x: tensor<4xf32>, %rate: tensor<f32>) -> (tensor<4xf32>, tensor<f32>) {
  %0 = stablehlo.multiply %x, %x : tensor<4xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %1 = stablehlo.reduce(%0 init: %zero) applies stablehlo.add across dimensions = [0]
    : (tensor<4xf32>, tensor<f32>) -> tensor<f32>
  %2 = stablehlo.multiply %1, %rate : tensor<f32>
  %3 = stablehlo.broadcast_in_dim %2, dims = [] : (tensor<f32>) -> tensor<4xf32>
  %tenth = stablehlo.constant dense<0.1> : tensor<4xf32>
  %4 = func.call @helper(%3, %tenth) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return %4, %2 : tensor<4xf32>, tensor<f32>
}

// CHECK-LABEL:    func.func private @helper(%arg0: tensor<4xbf16>, %arg1: tensor<4xbf16>) -> tensor<4xbf16>
// CHECK-NEXT:       %cst = stablehlo.constant dense<3.389530e+38> : tensor<4xbf16>
// CHECK-NEXT:       %0 = stablehlo.minimum %arg0, %cst : tensor<4xbf16>
// CHECK-NEXT:       %1 = stablehlo.add %0, %arg1 : tensor<4xbf16>
// CHECK-NEXT:       return %1
func.func private @helper(%x: tensor<4xf32>, %y: tensor<4xf32>) -> tensor<4xf32> {
  %largest = stablehlo.constant dense<0x7F7FFFFF> : tensor<4xf32>
  %0 = stablehlo.minimum %x, %largest : tensor<4xf32>
  %1 = stablehlo.add %0, %y : tensor<4xf32>
  return %1 : tensor<4xf32>
}

// Floats out of bits, and all that init does, stay float32.
// CHECK-LABEL:    func.func public @init
// CHECK-NEXT:       stablehlo.bitcast_convert %arg0 : (tensor<4xui32>) -> tensor<4xf32>
// CHECK-NEXT:       stablehlo.negate {{.*}} : tensor<4xf32>
func.func public @init(%bits: tensor<4xui32>) -> tensor<4xf32> {
  %0 = stablehlo.bitcast_convert %bits : (tensor<4xui32>) -> tensor<4xf32>
  %1 = stablehlo.negate %0 : tensor<4xf32>
  return %1 : tensor<4xf32>
}

// So does what says so by its name, and what it calls; what it gives is rounded.
// CHECK-LABEL:    func.func public @root
// CHECK:            %[[GIVEN:.*]] = call @step__in_float32_root({{.*}}) : (tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:       %[[ROUNDED:.*]] = stablehlo.convert %[[GIVEN]] : (tensor<4xf32>) -> tensor<4xbf16>
// CHECK-NEXT:       stablehlo.abs %[[ROUNDED]] : tensor<4xbf16>
func.func public @root(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = func.call @step__in_float32_root(%x) : (tensor<4xf32>) -> tensor<4xf32>
  %1 = stablehlo.abs %0 : tensor<4xf32>
  return %1 : tensor<4xf32>
}

// CHECK-LABEL:    func.func private @step__in_float32_root
// CHECK-NEXT:       stablehlo.sqrt {{.*}} : tensor<4xf32>
// CHECK-NEXT:       call @inner({{.*}}) : (tensor<4xf32>) -> tensor<4xf32>
func.func private @step__in_float32_root(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = stablehlo.sqrt %x : tensor<4xf32>
  %1 = func.call @inner(%0) : (tensor<4xf32>) -> tensor<4xf32>
  return %1 : tensor<4xf32>
}

// CHECK-LABEL:    func.func private @inner
// CHECK-NEXT:       stablehlo.sqrt {{.*}} : tensor<4xf32>
func.func private @inner(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = stablehlo.sqrt %x : tensor<4xf32>
  return %0 : tensor<4xf32>
}

// A reduction of 16-bit numbers accumulates in float32, body and all.
// EMULATED-LABEL: func.func public @largest
// EMULATED-DAG:     %[[X:.*]] = stablehlo.convert %arg0 : (tensor<4xbf16>) -> tensor<4xf32>
// EMULATED-DAG:     %[[INIT:.*]] = stablehlo.convert %cst : (tensor<bf16>) -> tensor<f32>
// EMULATED:         %[[Y:.*]] = stablehlo.reduce(%[[X]] init: %[[INIT]]) applies stablehlo.maximum across dimensions = [0] : (tensor<4xf32>, tensor<f32>) -> tensor<f32>
// EMULATED-NEXT:    stablehlo.convert %[[Y]] : (tensor<f32>) -> tensor<bf16>
func.func public @largest(%x: tensor<4xbf16>) -> tensor<bf16> {
  %lowest = stablehlo.constant dense<0xFF80> : tensor<bf16>
  %0 = stablehlo.reduce(%x init: %lowest) applies stablehlo.maximum across dimensions = [0]
    : (tensor<4xbf16>, tensor<bf16>) -> tensor<bf16>
  return %0 : tensor<bf16>
}

// What is no number stays none.
// CHECK-LABEL: func.func public @none
// CHECK:         stablehlo.constant dense<0x7FC0> : tensor<4xbf16>
func.func public @none(%x: tensor<4xf32>) -> tensor<4xf32> {
  %n = stablehlo.constant dense<0x7FC00000> : tensor<4xf32>
  %z = stablehlo.constant dense<0.0> : tensor<4xf32>
  %p = stablehlo.compare GT, %x, %z, FLOAT : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xi1>
  %r = stablehlo.select %p, %x, %n : tensor<4xi1>, tensor<4xf32>
  return %r : tensor<4xf32>
}
