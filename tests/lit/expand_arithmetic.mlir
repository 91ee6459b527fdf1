// RUN: %sonew-opt --pass expand-arithmetic %s | FileCheck %s

// CHECK-LABEL: func.func public @written_out
// CHECK-NOT:     stablehlo.{{tan |sign|cbrt|popcnt}}
// CHECK:         [[SINE:%.+]] = stablehlo.sine %arg0
// CHECK:         [[COSINE:%.+]] = stablehlo.cosine %arg0
// CHECK:         stablehlo.divide [[SINE]], [[COSINE]]
// CHECK:         [[NEAREST:%.+]] = stablehlo.remainder %arg0, %arg1
// CHECK:         [[TOWARDS_ZERO:%.+]] = stablehlo.add [[NEAREST]]
// CHECK:         stablehlo.select {{%.+}}, [[TOWARDS_ZERO]], [[NEAREST]]
func.func public @written_out(%x: tensor<6xf32>, %y: tensor<6xf32>, %n: tensor<6xi32>)
    -> (tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xi32>) {
  %0 = stablehlo.tan %x : tensor<6xf32>
  %1 = stablehlo.remainder %x, %y : tensor<6xf32>
  %2 = stablehlo.sign %x : tensor<6xf32>
  %3 = stablehlo.cbrt %x : tensor<6xf32>
  %4 = stablehlo.popcnt %n : tensor<6xi32>
  return %0, %1, %2, %3, %4 : tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xi32>
}

// Bits of 8 are looked at among 32, and what may need a constant of 16 bits is done in float32. An argument of a private
// function may be one.
// CHECK-LABEL: func.func public @widened
// CHECK:         stablehlo.shift_right_logical {{.*}} : tensor<6xui32>
// CHECK:         stablehlo.count_leading_zeros {{.*}} : tensor<6xui32>
// CHECK-COUNT-2: stablehlo.select %arg1, {{.*}} : tensor<6xi1>, tensor<6xf32>
// CHECK:         stablehlo.pad {{.*}} : (tensor<6xf32>, tensor<f32>) -> tensor<8xf32>
func.func public @widened(%n: tensor<6xi8>, %c: tensor<6xi1>, %h: tensor<6xbf16>)
    -> (tensor<6xi8>, tensor<6xi8>, tensor<6xbf16>, tensor<6xbf16>, tensor<8xbf16>) {
  %zero = stablehlo.constant dense<0.0> : tensor<bf16>
  %half = stablehlo.constant dense<0.5> : tensor<6xbf16>
  %0 = stablehlo.shift_right_logical %n, %n : tensor<6xi8>
  %1 = stablehlo.count_leading_zeros %n : tensor<6xi8>
  %2 = stablehlo.select %c, %h, %half : tensor<6xi1>, tensor<6xbf16>
  %3 = stablehlo.select %c, %2, %h : tensor<6xi1>, tensor<6xbf16>
  %4 = stablehlo.pad %h, %zero, low = [1], high = [1], interior = [0] : (tensor<6xbf16>, tensor<bf16>) -> tensor<8xbf16>
  return %0, %1, %2, %3, %4 : tensor<6xi8>, tensor<6xi8>, tensor<6xbf16>, tensor<6xbf16>, tensor<8xbf16>
}

// CHECK-LABEL: func.func public @others
// CHECK:         stablehlo.sign %arg0 : tensor<6xi32>
// CHECK:         stablehlo.remainder %arg0, %arg0 : tensor<6xi32>
// CHECK:         stablehlo.shift_right_logical %arg0, %arg0 : tensor<6xi32>
func.func public @others(%n: tensor<6xi32>) -> (tensor<6xi32>, tensor<6xi32>, tensor<6xi32>) {
  %0 = stablehlo.sign %n : tensor<6xi32>
  %1 = stablehlo.remainder %n, %n : tensor<6xi32>
  %2 = stablehlo.shift_right_logical %n, %n : tensor<6xi32>
  return %0, %1, %2 : tensor<6xi32>, tensor<6xi32>, tensor<6xi32>
}

// CHECK-LABEL: func.func public @not_a_number
// CHECK-SAME:    ([[X:%.+]]: tensor<4xf32>, [[Y:%.+]]: tensor<4xf32>, [[H:%.+]]: tensor<4xbf16>)
// CHECK:         [[SIZE:%.+]] = stablehlo.abs [[X]]
// CHECK:         [[NUMBER:%.+]] = stablehlo.compare LE, [[SIZE]], {{.+}}, FLOAT
// CHECK:         [[NAN:%.+]] = stablehlo.not [[NUMBER]]
// CHECK:         [[LEAST:%.+]] = stablehlo.compare LE, [[Y]], [[X]], FLOAT
// CHECK:         [[FINITE:%.+]] = stablehlo.compare LT, {{.+}}, {{.+}}, FLOAT
// CHECK:         stablehlo.compare LE, {{.+}}, {{.+}}, FLOAT : (tensor<4xf32>, tensor<4xf32>)
// CHECK:         stablehlo.compare EQ, [[X]], [[Y]], FLOAT
// CHECK-NOT:     stablehlo.compare
func.func public @not_a_number(%x: tensor<4xf32>, %y: tensor<4xf32>, %h: tensor<4xbf16>)
    -> (tensor<4xi1>, tensor<4xi1>, tensor<4xi1>, tensor<4xi1>, tensor<4xi1>) {
  %nan = stablehlo.compare NE, %x, %x, FLOAT : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xi1>
  %least = stablehlo.compare GE, %x, %y, FLOAT : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xi1>
  %finite = stablehlo.is_finite %x : (tensor<4xf32>) -> tensor<4xi1>
  %one = stablehlo.convert %h : (tensor<4xbf16>) -> tensor<4xf32>
  %other = stablehlo.convert %h : (tensor<4xbf16>) -> tensor<4xf32>
  %same = stablehlo.compare EQ, %one, %other, FLOAT : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xi1>
  %alike = stablehlo.compare EQ, %x, %y, FLOAT : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xi1>
  return %nan, %least, %finite, %same, %alike : tensor<4xi1>, tensor<4xi1>, tensor<4xi1>, tensor<4xi1>, tensor<4xi1>
}

// The comparison inside is done before the sort, which is erased together with its region.
// CHECK-LABEL: func.func public @negated
// CHECK-SAME:    ([[X:%.+]]: tensor<4xf32>, [[Y:%.+]]: tensor<4xf32>, {{.+}})
// CHECK:         stablehlo.compare LT, [[Y]], [[X]], FLOAT
// CHECK:         [[SAME:%.+]] = stablehlo.compare EQ, [[X]], [[Y]], FLOAT
// CHECK:         stablehlo.not [[SAME]]
// CHECK:         "stablehlo.sort"
// CHECK:         ([[A:%.+]]: tensor<f32>, [[B:%.+]]: tensor<f32>)
// CHECK:         stablehlo.compare LT, [[B]], [[A]], FLOAT : (tensor<f32>, tensor<f32>)
func.func public @negated(%x: tensor<4xf32>, %y: tensor<4xf32>, %h: tensor<4xbf16>)
    -> (tensor<4xi1>, tensor<4xi1>, tensor<4xbf16>) {
  %more = stablehlo.compare GT, %x, %y, FLOAT : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xi1>
  %other = stablehlo.compare NE, %x, %y, FLOAT : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xi1>
  %sorted = "stablehlo.sort"(%h) <{dimension = 0 : i64, is_stable = true}> ({
  ^bb0(%a: tensor<bf16>, %b: tensor<bf16>):
    %first = stablehlo.compare GT, %a, %b, FLOAT : (tensor<bf16>, tensor<bf16>) -> tensor<i1>
    stablehlo.return %first : tensor<i1>
  }) : (tensor<4xbf16>) -> tensor<4xbf16>
  return %more, %other, %sorted : tensor<4xi1>, tensor<4xi1>, tensor<4xbf16>
}

// The total order, which has a place for what is no number.
// CHECK-LABEL: func.func public @total_order
// CHECK:         stablehlo.compare GT, %arg0, %arg1, TOTALORDER
func.func public @total_order(%x: tensor<4xf32>, %y: tensor<4xf32>) -> tensor<4xi1> {
  %0 = stablehlo.compare GT, %x, %y, TOTALORDER : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xi1>
  return %0 : tensor<4xi1>
}
