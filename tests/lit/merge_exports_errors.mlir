// RUN: not %sonew-opt --pass merge-exports %s 2>&1 | FileCheck %s

// A program for several devices is refused, in one line.

// CHECK: sonew_opt: merge-exports: module @init has mhlo.num_partitions 2 : i32, not 1
module {
  module @init attributes {mhlo.num_partitions = 2 : i32} {
    func.func public @main() {
      return
    }
  }
}
