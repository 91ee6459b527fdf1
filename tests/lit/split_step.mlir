// RUN: %sonew-opt --pass split-step:count=4 %s | FileCheck %s
// RUN: %sonew-opt --pass split-step:exchange=bf16 %s | FileCheck %s --check-prefix=ROUND
// RUN: not %sonew-opt --pass split-step:exchange=f8 %s 2>&1 | FileCheck %s --check-prefix=TYPE
// TYPE: sonew_opt: pass split-step: 'f8' is no value for exchange: give f32 or bf16
// RUN: not %sonew-opt --pass split-step:count=0 %s 2>&1 | FileCheck %s --check-prefix=COUNT
// COUNT: sonew_opt: split-step: the count is 0; give the micro-batches in a batch, 1 or more

// What widens the stored parameter is in both; the bucket has the loss in front, the others in the order in which they are
// computed, and 16-bit gradients widened.
// CHECK-LABEL: func.func public @gradients(
// CHECK-SAME:    %arg0: tensor<2x3xbf16> {sonew.name = "params/w", sonew.role = "parameter"}
// CHECK-SAME:    %arg1: tensor<5x2xf32> {sonew.name = "batch/x", sonew.role = "batch"}
// CHECK-SAME:    -> (tensor<38xf32> {sonew.name = "bucket", sonew.role = "gradient"})
// CHECK:         %[[W:.*]] = stablehlo.convert %arg0
// CHECK:         %[[C:.*]]:3 = call @train_step__gradients(%[[W]], %arg1, %{{.*}})
// CHECK-DAG:     %[[L:.*]] = stablehlo.reshape %[[C]]#0 : (tensor<f32>) -> tensor<1xf32>
// CHECK-DAG:     %[[G:.*]] = stablehlo.reshape %[[C]]#1 : (tensor<2x3xf32>) -> tensor<6xf32>
// CHECK-DAG:     %[[B:.*]] = stablehlo.convert %[[C]]#2 : (tensor<3xbf16>) -> tensor<3xf32>
// CHECK:         stablehlo.concatenate %[[L]], %{{.*}}, %[[B]], %{{.*}}, %[[G]], dim = 0

// The loss stays as it is, and the signals are rounded to nearest, ties to even.
// ROUND-LABEL: func.func public @gradients(
// ROUND:         %[[C:.*]]:3 = call @train_step__gradients
// ROUND:         %[[BITS:.*]] = stablehlo.bitcast_convert %[[C]]#1 : (tensor<2x3xf32>) -> tensor<2x3xui32>
// ROUND:         stablehlo.constant dense<4294901760> : tensor<2x3xui32>
// ROUND:         %[[R:.*]] = stablehlo.bitcast_convert {{.*}} -> tensor<2x3xf32>
// ROUND-DAG:     stablehlo.reshape %[[C]]#0 : (tensor<f32>) -> tensor<1xf32>
// ROUND-DAG:     stablehlo.reshape %[[R]] : (tensor<2x3xf32>) -> tensor<6xf32>
// ROUND-LABEL: func.func public @update(

// The update takes the mean; what it gives up, it gives up still, and the batch is none of its.
// CHECK-LABEL: func.func public @update(
// CHECK-SAME:    %arg0: tensor<38xf32> {sonew.name = "bucket", sonew.role = "gradient"}
// CHECK-SAME:    %arg1: tensor<2x3xbf16> {sonew.donate, sonew.name = "params/w", sonew.role = "parameter"}
// CHECK-SAME:    %arg2: tensor<3xf32> {sonew.donate, sonew.name = "optimizer/m", sonew.role = "optimizer"}
// CHECK-SAME:    %arg3: tensor<f32> {sonew.name = "learning_rate", sonew.role = "learning_rate"})
// CHECK-SAME:    -> (tensor<2x3xbf16> {sonew.name = "params/w", sonew.role = "parameter"},
// CHECK-SAME:        tensor<3xf32> {sonew.name = "optimizer/m", sonew.role = "optimizer"},
// CHECK-SAME:        tensor<f32> {sonew.name = "loss", sonew.role = "loss"})
// CHECK:         stablehlo.slice %arg0 [0:1]
// CHECK:         stablehlo.slice %arg0 [16:19]
// CHECK:         stablehlo.convert {{.*}} : (tensor<3xf32>) -> tensor<3xbf16>
// CHECK:         %[[T:.*]] = stablehlo.slice %arg0 [32:38]
// CHECK:         %[[M:.*]] = stablehlo.reshape %[[T]] : (tensor<6xf32>) -> tensor<2x3xf32>
// CHECK:         %[[N:.*]] = stablehlo.constant dense<4.000000e+00>
// CHECK:         stablehlo.divide %[[M]], %[[N]] : tensor<2x3xf32>
// CHECK-NOT:     call @train_step__gradients
// CHECK:         call @train_step__update

// The step stays as it was.
// CHECK-LABEL: func.func public @train_step(
// CHECK:         call @train_step__gradients
func.func public @train_step(
    %w: tensor<2x3xbf16> {sonew.donate, sonew.name = "params/w", sonew.role = "parameter"},
    %m: tensor<3xf32> {sonew.donate, sonew.name = "optimizer/m", sonew.role = "optimizer"},
    %x: tensor<5x2xf32> {sonew.name = "batch/x", sonew.role = "batch"},
    %rate: tensor<f32> {sonew.name = "learning_rate", sonew.role = "learning_rate"})
    -> (tensor<2x3xbf16> {sonew.name = "params/w", sonew.role = "parameter"},
        tensor<3xf32> {sonew.name = "optimizer/m", sonew.role = "optimizer"},
        tensor<f32> {sonew.name = "loss", sonew.role = "loss"}) {
  %0 = stablehlo.convert %w : (tensor<2x3xbf16>) -> tensor<2x3xf32>
  %one = stablehlo.constant dense<1.0> : tensor<f32>
  %1:3 = call @train_step__gradients(%0, %x, %one)
      : (tensor<2x3xf32>, tensor<5x2xf32>, tensor<f32>) -> (tensor<f32>, tensor<2x3xf32>, tensor<3xbf16>)
  %2:2 = call @train_step__update(%1#1, %1#2, %0, %m, %rate)
      : (tensor<2x3xf32>, tensor<3xbf16>, tensor<2x3xf32>, tensor<3xf32>, tensor<f32>)
      -> (tensor<2x3xf32>, tensor<3xf32>)
  %3 = stablehlo.convert %2#0 : (tensor<2x3xf32>) -> tensor<2x3xbf16>
  return %3, %2#1, %1#0 : tensor<2x3xbf16>, tensor<3xf32>, tensor<f32>
}
func.func private @train_step__gradients(%w: tensor<2x3xf32>, %x: tensor<5x2xf32>, %c: tensor<f32>)
    -> (tensor<f32>, tensor<2x3xf32>, tensor<3xbf16>) {
  %0 = stablehlo.constant dense<0.0> : tensor<3xbf16>
  %1 = stablehlo.negate %w : tensor<2x3xf32>
  return %c, %1, %0 : tensor<f32>, tensor<2x3xf32>, tensor<3xbf16>
}
func.func private @train_step__update(
    %g: tensor<2x3xf32>, %b: tensor<3xbf16>, %w: tensor<2x3xf32>, %m: tensor<3xf32>, %rate: tensor<f32>)
    -> (tensor<2x3xf32>, tensor<3xf32>) {
  %0 = stablehlo.subtract %w, %g : tensor<2x3xf32>
  %1 = stablehlo.convert %b : (tensor<3xbf16>) -> tensor<3xf32>
  %2 = stablehlo.add %m, %1 : tensor<3xf32>
  return %0, %2 : tensor<2x3xf32>, tensor<3xf32>
}
