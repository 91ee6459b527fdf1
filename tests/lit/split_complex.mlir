// RUN: %sonew-opt --pass split-complex %s | FileCheck %s

// CHECK-LABEL: func.func public @product
// CHECK-NOT:     complex
// CHECK-DAG:     [[A:%.+]] = stablehlo.multiply %arg0, [[C:%.+]] : tensor<3xf32>
// CHECK-DAG:     [[B:%.+]] = stablehlo.multiply %arg1, [[D:%.+]] : tensor<3xf32>
// CHECK:         [[R:%.+]] = stablehlo.subtract [[A]], [[B]] : tensor<3xf32>
// CHECK:         stablehlo.add
// CHECK:         return [[R]]
func.func public @product(%x: tensor<3xf32>, %y: tensor<3xf32>) -> tensor<3xf32> {
  %z = stablehlo.complex %x, %y : tensor<3xcomplex<f32>>
  %c = stablehlo.constant dense<(2.0, -1.0)> : tensor<3xcomplex<f32>>
  %p = stablehlo.multiply %z, %c : tensor<3xcomplex<f32>>
  %r = stablehlo.real %p : (tensor<3xcomplex<f32>>) -> tensor<3xf32>
  return %r : tensor<3xf32>
}

// Calls and loops hand over the real values first, then both parts of each complex one.
// CHECK-LABEL: func.func public @loop
// CHECK:         stablehlo.while({{.*}}) : tensor<i32>, tensor<f32>, tensor<f32>
// CHECK:           func.call @turned({{.*}}) : (tensor<f32>, tensor<f32>) -> (tensor<f32>, tensor<f32>)
// CHECK-LABEL: func.func private @turned
// CHECK-SAME:    (%arg0: tensor<f32>, %arg1: tensor<f32>) -> (tensor<f32>, tensor<f32>)
// CHECK:         [[N:%.+]] = stablehlo.negate %arg1
// CHECK:         return [[N]], %arg0
func.func public @loop(%x: tensor<f32>) -> tensor<f32> {
  %zero = stablehlo.constant dense<0> : tensor<i32>
  %z = stablehlo.complex %x, %x : tensor<complex<f32>>
  %0:2 = stablehlo.while(%a = %z, %i = %zero) : tensor<complex<f32>>, tensor<i32>
  cond {
    %four = stablehlo.constant dense<4> : tensor<i32>
    %c = stablehlo.compare LT, %i, %four, SIGNED : (tensor<i32>, tensor<i32>) -> tensor<i1>
    stablehlo.return %c : tensor<i1>
  } do {
    %one = stablehlo.constant dense<1> : tensor<i32>
    %n = stablehlo.add %i, %one : tensor<i32>
    %t = func.call @turned(%a) : (tensor<complex<f32>>) -> tensor<complex<f32>>
    stablehlo.return %t, %n : tensor<complex<f32>>, tensor<i32>
  }
  %r = stablehlo.imag %0#0 : (tensor<complex<f32>>) -> tensor<f32>
  return %r : tensor<f32>
}
func.func private @turned(%z: tensor<complex<f32>>) -> tensor<complex<f32>> {
  %a = stablehlo.real %z : (tensor<complex<f32>>) -> tensor<f32>
  %b = stablehlo.imag %z : (tensor<complex<f32>>) -> tensor<f32>
  %n = stablehlo.negate %b : tensor<f32>
  %r = stablehlo.complex %n, %a : tensor<complex<f32>>
  return %r : tensor<complex<f32>>
}

// CHECK-LABEL: func.func public @barrier
// CHECK:         [[KEPT:%.+]]:3 = stablehlo.optimization_barrier %arg0, %arg0, %arg1 : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>
// CHECK:         stablehlo.add [[KEPT]]#1, [[KEPT]]#0
func.func public @barrier(%x: tensor<4xf32>, %w: tensor<4xf32>) -> tensor<4xf32> {
  %c = stablehlo.complex %x, %w : tensor<4xcomplex<f32>>
  %b:2 = stablehlo.optimization_barrier %c, %x : tensor<4xcomplex<f32>>, tensor<4xf32>
  %r = stablehlo.real %b#0 : (tensor<4xcomplex<f32>>) -> tensor<4xf32>
  %s = stablehlo.add %r, %b#1 : tensor<4xf32>
  return %s : tensor<4xf32>
}
