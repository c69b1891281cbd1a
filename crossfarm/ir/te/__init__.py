"""Programs by what each element is: ``from crossfarm import te``.

::

    n = te.var("n")
    A = te.placeholder((n, 512), name="A")
    B = te.placeholder((512, 256), name="B")
    k = te.reduce_axis((0, 512), "k")
    C = te.compute((n, 256), lambda i, j: te.sum(A[i, k] * B[k, j], axis=k), name="C")
    D = te.compute((n, 256), lambda i, j: te.maximum(C[i, j], 0), name="relu")
    module = IRModule({"main": te.create_prim_func([A, B, D])})

Each ``compute`` becomes one block under its own loops, in the order in which values are needed; what is not listed in
``create_prim_func`` is a temporary. Names and meaning follow TVM's tensor expressions.
"""

from crossfarm.ir.te.create import create_prim_func as create_prim_func
from crossfarm.ir.te.reduction import Reduction as Reduction
from crossfarm.ir.te.reduction import argmax as argmax
from crossfarm.ir.te.reduction import argmin as argmin
from crossfarm.ir.te.reduction import comm_reducer as comm_reducer
from crossfarm.ir.te.reduction import max as max
from crossfarm.ir.te.reduction import min as min
from crossfarm.ir.te.reduction import prod as prod
from crossfarm.ir.te.reduction import reduce_axis as reduce_axis
from crossfarm.ir.te.reduction import sum as sum
from crossfarm.ir.te.tensor import Tensor as Tensor
from crossfarm.ir.te.tensor import View as View
from crossfarm.ir.te.tensor import compute as compute
from crossfarm.ir.te.tensor import placeholder as placeholder
from crossfarm.ir.te.value import *  # noqa: F403 - the functions of values, listed in its __all__
