// RUN: not %sonew-opt --pass wire-donation %s 2>&1 | FileCheck %s

// CHECK: sonew_opt: wire-donation: argument 1 of @main, 'm', is donated as tensor<4xf32> but the result of that name is tensor<4xbf16>
func.func public @main(%g: tensor<4xf32> {sonew.name = "g"}, %m: tensor<4xf32> {sonew.donate, sonew.name = "m"})
    -> (tensor<4xbf16> {sonew.name = "m"}) {
  %0 = stablehlo.convert %m : (tensor<4xf32>) -> tensor<4xbf16>
  return %0 : tensor<4xbf16>
}
