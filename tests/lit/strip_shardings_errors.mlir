// RUN: not %sonew-opt --pass strip-shardings %s 2>&1 | FileCheck %s

// CHECK: computes on several devices (sdy.all_reduce); a bundle is for one: leave out jax.shard_map and collectives
sdy.mesh @mesh = <["a"=2]>
func.func public @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = sdy.all_reduce {"a"} %x out_sharding=<@mesh, [{}]> : tensor<4xf32>
  return %0 : tensor<4xf32>
}
