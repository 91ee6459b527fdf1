// RUN: %sonew-opt --pass split-update %s | FileCheck %s
// RUN: not %sonew-opt --pass split-update:parts=1 %s 2>&1 | FileCheck %s --check-prefix=PARTS
// PARTS: sonew_opt: split-update: parts is 1; give the most parts, 2 or more

// The count is common, and the boolean that both parts read leaves as an integer. Nothing is given up, since the parts
// still read the old count.
// CHECK-LABEL: func.func public @update_common(
// CHECK-SAME:    %arg0: tensor<51xf32> {sonew.name = "bucket", sonew.role = "gradient"}
// CHECK-SAME:    %arg1: tensor<i32> {sonew.name = "optimizer/n", sonew.role = "optimizer"})
// CHECK-SAME:    -> (tensor<i32> {sonew.name = "optimizer/n", sonew.role = "optimizer"},
// CHECK-SAME:        tensor<f32> {sonew.name = "loss", sonew.role = "loss"},
// CHECK-SAME:        tensor<i32> {sonew.name = "gradients/number_0", sonew.role = "gradient"})
// CHECK:         stablehlo.reduce
// CHECK:         %[[POSITIVE:.*]] = stablehlo.compare
// CHECK:         stablehlo.convert %[[POSITIVE]] : (tensor<i1>) -> tensor<i32>

// A part has its own tensors, and its own branch of the two that one operation had.
// CHECK-LABEL: func.func public @update_0(
// CHECK-SAME:    %arg0: tensor<i32> {sonew.name = "gradients/number_0", sonew.role = "gradient"}
// CHECK-SAME:    %arg1: tensor<51xf32> {sonew.name = "bucket", sonew.role = "gradient"}
// CHECK-SAME:    %arg2: tensor<5x5xf32> {sonew.donate, sonew.name = "params/v", sonew.role = "parameter"}
// CHECK-SAME:    %arg3: tensor<25xf32> {sonew.donate, sonew.name = "optimizer/v", sonew.role = "optimizer"}
// CHECK-SAME:    %arg4: tensor<i32> {sonew.name = "optimizer/n", sonew.role = "optimizer"})
// CHECK-SAME:    -> (tensor<5x5xf32> {sonew.name = "params/v", sonew.role = "parameter"},
// CHECK-SAME:        tensor<25xf32> {sonew.name = "optimizer/v", sonew.role = "optimizer"})
// CHECK-NOT:     stablehlo.reduce
// CHECK:         stablehlo.compare NE, %arg0
// CHECK:         "stablehlo.if"
// CHECK:         stablehlo.return %{{[^,]*}} : tensor<25xf32>
// CHECK-LABEL: func.func public @update_1(
// CHECK-SAME:    sonew.name = "params/w"
// CHECK-SAME:    sonew.name = "optimizer/w"
// CHECK:         stablehlo.return %{{[^,]*}} : tensor<25xf32>

// The whole stays as it was.
// CHECK-LABEL: func.func public @update(
// CHECK:         call @step
func.func public @update(
    %bucket: tensor<51xf32> {sonew.name = "bucket", sonew.role = "gradient"},
    %v: tensor<5x5xf32> {sonew.donate, sonew.name = "params/v", sonew.role = "parameter"},
    %w: tensor<5x5xf32> {sonew.donate, sonew.name = "params/w", sonew.role = "parameter"},
    %mv: tensor<25xf32> {sonew.donate, sonew.name = "optimizer/v", sonew.role = "optimizer"},
    %mw: tensor<25xf32> {sonew.donate, sonew.name = "optimizer/w", sonew.role = "optimizer"},
    %n: tensor<i32> {sonew.donate, sonew.name = "optimizer/n", sonew.role = "optimizer"})
    -> (tensor<5x5xf32> {sonew.name = "params/v", sonew.role = "parameter"},
        tensor<5x5xf32> {sonew.name = "params/w", sonew.role = "parameter"},
        tensor<25xf32> {sonew.name = "optimizer/v", sonew.role = "optimizer"},
        tensor<25xf32> {sonew.name = "optimizer/w", sonew.role = "optimizer"},
        tensor<i32> {sonew.name = "optimizer/n", sonew.role = "optimizer"},
        tensor<f32> {sonew.name = "loss", sonew.role = "loss"}) {
  %first = stablehlo.slice %bucket [0:1] : (tensor<51xf32>) -> tensor<1xf32>
  %loss = stablehlo.reshape %first : (tensor<1xf32>) -> tensor<f32>
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %sum = stablehlo.reduce(%bucket init: %zero) applies stablehlo.add across dimensions = [0]
      : (tensor<51xf32>, tensor<f32>) -> tensor<f32>
  %positive = stablehlo.compare GT, %sum, %zero : (tensor<f32>, tensor<f32>) -> tensor<i1>
  %0:5 = call @step(%bucket, %positive, %v, %w, %mv, %mw, %n)
      : (tensor<51xf32>, tensor<i1>, tensor<5x5xf32>, tensor<5x5xf32>, tensor<25xf32>, tensor<25xf32>, tensor<i32>)
      -> (tensor<5x5xf32>, tensor<5x5xf32>, tensor<25xf32>, tensor<25xf32>, tensor<i32>)
  return %0#0, %0#1, %0#2, %0#3, %0#4, %loss
      : tensor<5x5xf32>, tensor<5x5xf32>, tensor<25xf32>, tensor<25xf32>, tensor<i32>, tensor<f32>
}
func.func private @step(%bucket: tensor<51xf32>, %positive: tensor<i1>, %v: tensor<5x5xf32>, %w: tensor<5x5xf32>,
    %mv: tensor<25xf32>, %mw: tensor<25xf32>, %n: tensor<i32>)
    -> (tensor<5x5xf32>, tensor<5x5xf32>, tensor<25xf32>, tensor<25xf32>, tensor<i32>) {
  %gv = stablehlo.slice %bucket [1:26] : (tensor<51xf32>) -> tensor<25xf32>
  %gw = stablehlo.slice %bucket [26:51] : (tensor<51xf32>) -> tensor<25xf32>
  %one = stablehlo.constant dense<1> : tensor<i32>
  %even = stablehlo.and %n, %one : tensor<i32>
  %is_odd = stablehlo.compare EQ, %even, %one : (tensor<i32>, tensor<i32>) -> tensor<i1>
  %0:2 = "stablehlo.if"(%is_odd) ({
    %av = stablehlo.add %mv, %gv : tensor<25xf32>
    %aw = stablehlo.add %mw, %gw : tensor<25xf32>
    stablehlo.return %av, %aw : tensor<25xf32>, tensor<25xf32>
  }, {
    stablehlo.return %mv, %mw : tensor<25xf32>, tensor<25xf32>
  }) : (tensor<i1>) -> (tensor<25xf32>, tensor<25xf32>)
  %kept_v = stablehlo.select %positive, %0#0, %mv : tensor<i1>, tensor<25xf32>
  %kept_w = stablehlo.select %positive, %0#1, %mw : tensor<i1>, tensor<25xf32>
  %uv = stablehlo.reshape %kept_v : (tensor<25xf32>) -> tensor<5x5xf32>
  %uw = stablehlo.reshape %kept_w : (tensor<25xf32>) -> tensor<5x5xf32>
  %v1 = stablehlo.subtract %v, %uv : tensor<5x5xf32>
  %w1 = stablehlo.subtract %w, %uw : tensor<5x5xf32>
  %n1 = stablehlo.add %n, %one : tensor<i32>
  return %v1, %w1, %kept_v, %kept_w, %n1 : tensor<5x5xf32>, tensor<5x5xf32>, tensor<25xf32>, tensor<25xf32>, tensor<i32>
}
