// RUN: %sonew-opt --pass saturate-conversions %s | FileCheck %s

// CHECK-LABEL: func.func public @signed
// CHECK:         [[ABOVE:%.+]] = stablehlo.compare GE, %arg0, %{{.*}}, FLOAT
// CHECK:         [[LOW:%.+]] = stablehlo.compare GE, %arg0, %{{.*}}, FLOAT
// CHECK:         [[HIGH:%.+]] = stablehlo.compare LT, %arg0, %{{.*}}, FLOAT
// CHECK:         [[BOTH:%.+]] = stablehlo.and [[LOW]], [[HIGH]]
// CHECK:         [[INSIDE:%.+]] = stablehlo.select [[BOTH]], %arg0
// CHECK:         [[NUMBER:%.+]] = stablehlo.convert [[INSIDE]] : (tensor<6xf32>) -> tensor<6xi32>
// CHECK:         [[MOST:%.+]] = stablehlo.constant dense<2147483647> : tensor<6xi32>
// CHECK:         [[CUT:%.+]] = stablehlo.select [[ABOVE]], [[MOST]], [[NUMBER]]
// CHECK:         [[LEAST:%.+]] = stablehlo.constant dense<-2147483648> : tensor<6xi32>
// CHECK:         stablehlo.select {{%.+}}, [[LEAST]], [[CUT]]
func.func public @signed(%x: tensor<6xf32>) -> tensor<6xi32> {
  %0 = stablehlo.convert %x : (tensor<6xf32>) -> tensor<6xi32>
  return %0 : tensor<6xi32>
}

// A negative number is 0 like NaN. Numbers of 16 bits are compared as float32, which has all bounds.
// CHECK-LABEL: func.func public @unsigned
// CHECK:         [[X:%.+]] = stablehlo.convert %arg0 : (tensor<6xf16>) -> tensor<6xf32>
// CHECK:         stablehlo.convert {{%.+}} : (tensor<6xf32>) -> tensor<6xi32>
// CHECK:         [[NUMBER:%.+]] = stablehlo.convert {{%.+}} : (tensor<6xi32>) -> tensor<6xui8>
// CHECK:         [[MOST:%.+]] = stablehlo.constant dense<255> : tensor<6xui8>
// CHECK:         [[RESULT:%.+]] = stablehlo.select {{%.+}}, [[MOST]], [[NUMBER]]
// CHECK:         return [[RESULT]]
func.func public @unsigned(%x: tensor<6xf16>) -> tensor<6xui8> {
  %0 = stablehlo.convert %x : (tensor<6xf16>) -> tensor<6xui8>
  return %0 : tensor<6xui8>
}

// CHECK-LABEL: func.func public @others
// CHECK-NOT:     stablehlo.select
func.func public @others(%x: tensor<6xi32>, %y: tensor<6xf32>) -> (tensor<6xf32>, tensor<6xi1>, tensor<6xbf16>) {
  %0 = stablehlo.convert %x : (tensor<6xi32>) -> tensor<6xf32>
  %1 = stablehlo.convert %y : (tensor<6xf32>) -> tensor<6xi1>
  %2 = stablehlo.convert %y : (tensor<6xf32>) -> tensor<6xbf16>
  return %0, %1, %2 : tensor<6xf32>, tensor<6xi1>, tensor<6xbf16>
}
