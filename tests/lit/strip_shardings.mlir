// RUN: %sonew-opt --pass strip-shardings %s | FileCheck %s

// What annotates gives way to its operand, and no attribute of devices, memories and layouts stays; others do.
// CHECK-NOT:   sdy.
// CHECK-NOT:   mhlo.
// CHECK:       func.func public @main(%arg0: tensor<4x2xf32> {sonew.name = "x"}) -> (tensor<4x2xf32> {sonew.name = "y"})
// CHECK-NEXT:    [[SUM:%.+]] = stablehlo.add %arg0, %arg0 : tensor<4x2xf32>
// CHECK-NEXT:    [[CALLED:%.+]] = stablehlo.custom_call @lapack_sgetrf_ffi([[SUM]]) {mhlo.backend_config
// CHECK-NEXT:    return [[CALLED]]
module @jit {
  sdy.mesh @mesh = <["a"=1]>
  func.func public @main(%x: tensor<4x2xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"a"}, {}]>, sonew.name = "x"}) -> (tensor<4x2xf32> {mhlo.memory_kind = "pinned_host", sonew.name = "y"}) {
    %0 = sdy.sharding_constraint %x <@mesh, [{"a"}, {}]> : tensor<4x2xf32>
    %1 = stablehlo.custom_call @Sharding(%0) : (tensor<4x2xf32>) -> tensor<4x2xf32>
    %2 = stablehlo.custom_call @annotate_device_placement(%1) {has_side_effect = true} : (tensor<4x2xf32>) -> tensor<4x2xf32>
    %3 = stablehlo.add %2, %2 {mhlo.frontend_attributes = {_xla_compute_type = "host"}} : tensor<4x2xf32>
    %4 = stablehlo.custom_call @lapack_sgetrf_ffi(%3) {mhlo.backend_config = {}} : (tensor<4x2xf32>) -> tensor<4x2xf32>
    return %4 : tensor<4x2xf32>
  }
}
