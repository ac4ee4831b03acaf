"""Spatial arrays: kernels mapped on axes and memories that a device file describes.

What runs (`nest`) meets what it runs on (`hierarchy`, with figures of `process` where the file has
none). Loops are unrolled (`unrolling`), tiled and ordered (`mapping`, `uneven`), which decides
bytes (`traffic`) and cycles (`timing`). The best mapping is searched (`search`) by compiled code
(`descent`, `bound`, `boxes`, `crossing`, `cycles`, `steps`) on records (`problem`, `records`) and
accounted (`schedule`); `vector` prices what multiplies nothing, `estimator` whole kernels,
`points` kernels on many arrays.
"""
