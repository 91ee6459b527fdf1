// RUN: %sonew-opt --pass take-examples %s | FileCheck %s
// RUN: %sonew-opt --pass take-examples:lanes=8 %s | FileCheck %s --check-prefix=KERNEL

// Bytes are parts of 255 in a table; the index is computed by way of float32. Labels are no parts.
// CHECK-LABEL:   func.func public @take_float32_float32_4x2x5
// CHECK:           [[ROWS:%.+]] = "stablehlo.gather"(%arg0, {{.*}}) -> tensor<4x10xf32>
// CHECK-NEXT:      stablehlo.reshape [[ROWS]] : (tensor<4x10xf32>) -> tensor<4x2x5xf32>
// CHECK-LABEL:   func.func public @take_uint8_float32_4x2x5(%arg0: tensor<?x10xui8> {{.*}}, %arg1: tensor<4xi32>
// CHECK:           [[ROWS:%.+]] = "stablehlo.gather"(%arg0, {{.*}}) -> tensor<4x10xui8>
// CHECK:           [[NUMBER:%.+]] = stablehlo.convert [[ROWS]] : (tensor<4x10xui8>) -> tensor<4x10xf32>
// CHECK:           stablehlo.convert [[NUMBER]] : (tensor<4x10xf32>) -> tensor<4x10xi32>
// CHECK:           [[TABLE:%.+]] = stablehlo.constant dense<{{.*}}> : tensor<256xf32>
// CHECK:           "stablehlo.gather"([[TABLE]], {{.*}}) -> tensor<4x10xf32>
// CHECK-LABEL:   func.func public @take_int32_int32_4(
// CHECK-NOT:     func.func public @take

// A row fills a vector of 8, and the second vector overlaps the first; the labels have no kernel.
// KERNEL:        func.func @take_uint8_float32_4x2x5(%arg0: !stream.binding, %arg1: !stream.binding, %arg2: !stream.binding) {
// KERNEL:          scf.for
// KERNEL:            memref.load
// KERNEL:            scf.for
// KERNEL:              [[BYTES:%.+]] = vector.load {{.*}} vector<8xi8>
// KERNEL:              arith.uitofp [[BYTES]]
// KERNEL:              arith.divf
// KERNEL:              vector.store
// KERNEL:            }
// KERNEL:            vector.load
// KERNEL:            vector.store
// KERNEL-LABEL:  func.func public @take_uint8_float32_4x2x5(%arg0: tensor<?x10xi8>
// KERNEL:          "flow.dispatch"(%arg0, %arg1, {{.*}}) {entry_points = [@takes::@take_uint8_float32_4x2x5]
// KERNEL-LABEL:  func.func public @take_int32_int32_4(
// KERNEL:          "stablehlo.gather"
func.func public @train_step(%w: tensor<f32> {sonew.name = "params/w"},
                             %x: tensor<4x2x5xf32> {sonew.name = "batch/image"},
                             %y: tensor<4xi32> {sonew.name = "batch/label"},
                             %z: tensor<4x2xi1> {sonew.name = "batch/mask"})
    -> (tensor<f32> {sonew.name = "params/w"}) {
  return %w : tensor<f32>
}
