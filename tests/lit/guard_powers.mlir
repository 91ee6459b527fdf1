// RUN: %sonew-opt --pass guard-powers %s | FileCheck %s

// CHECK-LABEL: func.func public @any
// CHECK:         [[INVERSE:%.+]] = stablehlo.divide {{%.+}}, %arg0
// CHECK:         [[BELOW:%.+]] = stablehlo.compare LT, %arg0, {{%.+}}, FLOAT
// CHECK:         [[UNDER:%.+]] = stablehlo.compare LT, [[INVERSE]], {{%.+}}, FLOAT
// CHECK:         [[NEGATIVE:%.+]] = stablehlo.or [[BELOW]], [[UNDER]]
// CHECK:         [[MINUS:%.+]] = stablehlo.negate %arg0
// CHECK:         [[SIZE:%.+]] = stablehlo.select [[NEGATIVE]], [[MINUS]], %arg0
// CHECK:         [[POWER:%.+]] = stablehlo.power [[SIZE]], %arg1
// CHECK:         [[ROOT:%.+]] = stablehlo.compare EQ, [[SIZE]]
// CHECK:         [[NOTHING:%.+]] = stablehlo.compare EQ, %arg1
// CHECK:         [[ONE:%.+]] = stablehlo.select [[ROOT]], {{%.+}}, [[POWER]]
// CHECK:         [[RIGHT:%.+]] = stablehlo.select [[NOTHING]], {{%.+}}, [[ONE]]
// CHECK:         [[SIGNED:%.+]] = stablehlo.select {{%.+}}, {{%.+}}, {{%.+}}
// CHECK:         [[RESULT:%.+]] = stablehlo.select [[NEGATIVE]], {{%.+}}, [[RIGHT]]
// CHECK:         return [[RESULT]]
func.func public @any(%x: tensor<6xf32>, %y: tensor<6xf32>) -> tensor<6xf32> {
  %0 = stablehlo.power %x, %y : tensor<6xf32>
  return %0 : tensor<6xf32>
}

// A decay, and integers.
// CHECK-LABEL: func.func public @others
// CHECK-NOT:     stablehlo.select
func.func public @others(%n: tensor<f32>, %i: tensor<6xi32>) -> (tensor<f32>, tensor<6xi32>) {
  %decay = stablehlo.constant dense<0.9> : tensor<f32>
  %0 = stablehlo.power %decay, %n : tensor<f32>
  %3 = stablehlo.power %i, %i : tensor<6xi32>
  return %0, %3 : tensor<f32>, tensor<6xi32>
}
