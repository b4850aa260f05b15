"""What the library has beside ops: modules by the library's own names, as in `ttnn.cluster.get_cluster_type`.

Each module says in `__all__` what it offers. What the library also has at the top of `ttnn` hangs there too; `names`
answers for the rest of each namespace.
"""

from . import (
    ccl,
    cluster,
    core,
    decorators,
    device,
    distributed,
    dot_access,
    enumerations,
    graph,
    model_preprocessing,
    profiler,
    tensor,
    tracer,
)
from .enumerations import PLACES as PLACES

#: Namespace of the library -> what is there.
SPACES = {
    "cluster": cluster, "core": core, "decorators": decorators, "device": device, "distributed": distributed,
    "dot_access": dot_access, "graph": graph, "model_preprocessing": model_preprocessing, "profiler": profiler,
    "tracer": tracer, "operations.ccl": ccl, "_ttnn.multi_device": distributed, "_ttnn.tensor": tensor,
    "types": enumerations,
}  # fmt: skip
