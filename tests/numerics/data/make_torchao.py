"""Writes torchao_0_18.npz: what torchao's MX and NVFP4 tensors decode to.

Run once where torchao 0.18.0 is installed; the tests only read the file. Block maxima stay above
2^-100: torchao replaces the scale 2^-127 by 2^-126, OCP MX does not.
"""

import pathlib

import numpy as np
import torch
from torchao.prototype.mx_formats import constants, nvfp4_tensor
from torchao.prototype.mx_formats.config import ScaleCalculationMode
from torchao.prototype.mx_formats.mx_tensor import MXTensor

ELEMENTS = {
    "e4m3": torch.float8_e4m3fn,
    "e5m2": torch.float8_e5m2,
    "e2m3": constants.DTYPE_FP6_E2M3,
    "e3m2": constants.DTYPE_FP6_E3M2,
    "e2m1": torch.float4_e2m1fn_x2,
}


def inputs() -> np.ndarray:
    rng = np.random.default_rng(7)
    spread = np.exp2(rng.integers(-20, 20, (16, 4)).repeat(16, 1))
    x = (rng.standard_normal((16, 64)) * spread).astype(np.float32)
    x[0], x[1, :40], x[2, 5] = 0, 0, -0.0
    x[5], x[6], x[10], x[9, :32] = 6.0, 448, 7.0, np.nextafter(np.float32(1), np.float32(0))
    x[7] = np.exp2(np.arange(64) - 32.0)
    return x


def nvfp4(x: torch.Tensor) -> np.ndarray:
    scale = nvfp4_tensor.per_tensor_amax_to_scale(x.abs().max())
    packed = nvfp4_tensor.NVFP4Tensor.to_nvfp4(x, per_tensor_scale=scale)
    return packed.dequantize(torch.float32).numpy()


def main() -> None:
    x = torch.from_numpy(inputs())
    gauss = torch.from_numpy(np.random.default_rng(8).standard_normal((16, 64)).astype(np.float32))
    arrays = {"x": x.numpy(), "gauss": gauss.numpy()}
    arrays |= {"nvfp4": nvfp4(x), "nvfp4_gauss": nvfp4(gauss)}
    for name, dtype in ELEMENTS.items():
        for mode in ScaleCalculationMode:
            if mode.value in ("floor", "ceil", "even", "rceil"):
                mx = MXTensor.to_mx(x, dtype, 32, mode)
                arrays[f"{name}-{mode.value}"] = mx.dequantize(torch.float32).numpy()
    np.savez_compressed(pathlib.Path(__file__).with_name("torchao_0_18.npz"), **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
