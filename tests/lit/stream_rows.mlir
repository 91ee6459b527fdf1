// RUN: %sonew-opt --pass stream-rows:elements=16,lanes=4 %s | FileCheck %s

// All kernels are in one executable.
// CHECK:       "stream.executable"()
// CHECK-NEXT:    "stream.executable.export"()
// CHECK:         {function_ref = @rows_0_40x4, sym_name = "rows_0_40x4"}
// CHECK:         {function_ref = @rows_2_40x4, sym_name = "rows_2_40x4"}
// CHECK:         module {

// One kernel, with the shift, the helper's body and the reduction in it. Rows before the last read the next row; the last
// row, in masks, reads the first one a column on, and what is filled in after the last column.
// CHECK:         func.func @rows_0_40x4(%arg0: !stream.binding, %arg1: !stream.binding, %arg2: !stream.binding, %arg3: !stream.binding)
// CHECK:           [[X:%.+]] = "stream.binding.subspan"(%arg0,
// CHECK:           [[G:%.+]] = "stream.binding.subspan"(%arg1,
// CHECK:           [[LEAST:%.+]] = vector.broadcast {{.*}} : f32 to vector<4xf32>
// CHECK:           [[RESULT:%.+]] = "stream.binding.subspan"(%arg0,
// CHECK:           [[SUM:%.+]] = scf.for [[ROW:%.+]] = {{.*}} -> (vector<4xf32>) {
// CHECK:             scf.if
// CHECK:             scf.for
// CHECK:               [[HERE:%.+]] = vector.load [[X]]{{.*}} vector<4xf32>
// CHECK:               [[NEXT:%.+]] = vector.load [[G]]{{.*}} vector<4xf32>
// CHECK-NEXT:          [[MOST:%.+]] = arith.maximumf [[NEXT]], [[LEAST]] : vector<4xf32>
// CHECK-NEXT:          [[ADDED:%.+]] = arith.addf [[HERE]], [[MOST]] : vector<4xf32>
// CHECK-NEXT:          arith.mulf [[ADDED]], [[ADDED]]
// CHECK-NEXT:          vector.store [[ADDED]], [[RESULT]]
// CHECK:             } else {
// CHECK:               %c-159 = arith.constant -159 : index
// CHECK:               scf.for
// CHECK:                 vector.create_mask
// CHECK:                 vector.maskedload [[G]]
// CHECK:                 [[END:%.+]] = arith.cmpi eq, {{.*}} : vector<4xi32>
// CHECK-NEXT:            [[FILL:%.+]] = arith.constant dense<5.000000e-01> : vector<4xf32>
// CHECK-NEXT:            arith.select [[END]], [[FILL]],
// CHECK:                 vector.maskedstore [[RESULT]]
// CHECK:           [[ALL:%.+]] = vector.reduction <add>, [[SUM]] : vector<4xf32> into f32
// CHECK-NEXT:      memref.store [[ALL]]

// Of `scaled` below, the kernel that reads the sum: it adds up the parts, and goes on from there for itself.
// CHECK:         func.func @rows_2_40x4(
// CHECK:           [[RATE:%.+]] = vector.broadcast
// CHECK:           [[PARTS:%.+]] = "stream.binding.subspan"(%arg2,
// CHECK:           vector.maskedload [[PARTS]]
// CHECK:           [[ALL:%.+]] = vector.reduction <add>
// CHECK:           [[SUM:%.+]] = vector.broadcast [[ALL]] : f32 to vector<4xf32>
// CHECK:           [[TOTAL:%.+]] = arith.addf {{.*}}, [[SUM]]
// CHECK-NEXT:      [[SCALE:%.+]] = arith.mulf [[RATE]], [[TOTAL]]
// CHECK:           arith.mulf {{.*}}, [[SCALE]]

// Of `packed`: the matrix is read where it is in the vector, from byte 12 on.
// CHECK:         func.func @rows_3_40x4(
// CHECK:           [[START:%.+]] = arith.constant 12 : index
// CHECK:           "stream.binding.subspan"(%arg0, [[START]]) : (!stream.binding, index) -> memref<160xf32>

// The donated argument is overwritten.
// CHECK-LABEL: func.func public @step
// CHECK-SAME:    tf.aliasing_output = 0 : i32
// CHECK-NEXT:    [[BOTH:%.+]]:2 = "flow.dispatch"(%arg0, %arg1, %arg2) {{.*}} tied_operands = [0 : index, -1 : index]}
// CHECK:         [[TOTAL:%.+]] = stablehlo.reduce([[BOTH]]#1 init:
// CHECK-NEXT:    return [[BOTH]]#0, [[TOTAL]]
func.func public @step(%x: tensor<40x4xf32> {sonew.name = "x", tf.aliasing_output = 0 : i32}, %g: tensor<40x4xf32> {sonew.name = "g"}, %least: tensor<f32>) -> (tensor<40x4xf32>, tensor<f32>) {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %fill = stablehlo.constant dense<0.5> : tensor<1x1xf32>
  %0 = call @helper(%g, %least) : (tensor<40x4xf32>, tensor<f32>) -> tensor<40x4xf32>
  %1 = stablehlo.slice %0 [1:40, 0:4] : (tensor<40x4xf32>) -> tensor<39x4xf32>
  %2 = stablehlo.slice %0 [0:1, 1:4] : (tensor<40x4xf32>) -> tensor<1x3xf32>
  %3 = stablehlo.concatenate %2, %fill, dim = 1 : (tensor<1x3xf32>, tensor<1x1xf32>) -> tensor<1x4xf32>
  %4 = stablehlo.concatenate %1, %3, dim = 0 : (tensor<39x4xf32>, tensor<1x4xf32>) -> tensor<40x4xf32>
  %5 = stablehlo.add %x, %4 : tensor<40x4xf32>
  %6 = stablehlo.multiply %5, %5 : tensor<40x4xf32>
  %7 = stablehlo.reduce(%6 init: %zero) applies stablehlo.add across dimensions = [0, 1] : (tensor<40x4xf32>, tensor<f32>) -> tensor<f32>
  return %5, %7 : tensor<40x4xf32>, tensor<f32>
}

func.func private @helper(%x: tensor<40x4xf32>, %least: tensor<f32>) -> tensor<40x4xf32> {
  %0 = stablehlo.broadcast_in_dim %least, dims = [] : (tensor<f32>) -> tensor<40x4xf32>
  %1 = stablehlo.maximum %x, %0 : tensor<40x4xf32>
  return %1 : tensor<40x4xf32>
}

// The sum itself is not computed, nor what depends on it.
// CHECK-LABEL: func.func public @scaled
// CHECK-NEXT:    [[SUMS:%.+]] = "flow.dispatch"(%arg0) {entry_points = [@rows::@rows_1_40x4]
// CHECK-NEXT:    [[SCALED:%.+]] = "flow.dispatch"(%arg0, %arg1, [[SUMS]]) {entry_points = [@rows::@rows_2_40x4]
// CHECK-NEXT:    return [[SCALED]]
func.func public @scaled(%x: tensor<40x4xf32> {sonew.name = "x"}, %rate: tensor<f32>) -> tensor<40x4xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %fill = stablehlo.constant dense<0.0> : tensor<1x4xf32>
  %0 = stablehlo.slice %x [1:40, 0:4] : (tensor<40x4xf32>) -> tensor<39x4xf32>
  %1 = stablehlo.concatenate %0, %fill, dim = 0 : (tensor<39x4xf32>, tensor<1x4xf32>) -> tensor<40x4xf32>
  %2 = stablehlo.add %x, %1 : tensor<40x4xf32>
  %3 = stablehlo.reduce(%2 init: %zero) applies stablehlo.add across dimensions = [0, 1] : (tensor<40x4xf32>, tensor<f32>) -> tensor<f32>
  %4 = stablehlo.multiply %rate, %3 : tensor<f32>
  %5 = stablehlo.broadcast_in_dim %4, dims = [] : (tensor<f32>) -> tensor<40x4xf32>
  %6 = stablehlo.multiply %2, %5 : tensor<40x4xf32>
  return %6 : tensor<40x4xf32>
}

// CHECK-LABEL: func.func public @packed
// CHECK-NEXT:    [[ADDED:%.+]] = "flow.dispatch"(%arg0) {entry_points = [@rows::@rows_3_40x4]
// CHECK-NEXT:    return [[ADDED]]
func.func public @packed(%v: tensor<170xf32> {sonew.name = "v"}) -> tensor<40x4xf32> {
  %fill = stablehlo.constant dense<0.0> : tensor<1x4xf32>
  %part = stablehlo.slice %v [3:163] : (tensor<170xf32>) -> tensor<160xf32>
  %x = stablehlo.reshape %part : (tensor<160xf32>) -> tensor<40x4xf32>
  %0 = stablehlo.slice %x [1:40, 0:4] : (tensor<40x4xf32>) -> tensor<39x4xf32>
  %1 = stablehlo.concatenate %0, %fill, dim = 0 : (tensor<39x4xf32>, tensor<1x4xf32>) -> tensor<40x4xf32>
  %2 = stablehlo.add %x, %1 : tensor<40x4xf32>
  return %2 : tensor<40x4xf32>
}
