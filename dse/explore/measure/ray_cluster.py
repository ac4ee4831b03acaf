"""The Ray cluster that work is sent to."""

from __future__ import annotations

import logging

from dse.errors import RunError

try:
    import ray
    from ray.exceptions import RayError
except ImportError:
    raise RunError("--executor ray: needs Ray; install it with: pip install 'dse[ray]'") from None


def connected() -> bool:
    """Connects with the cluster that `RAY_ADDRESS` names, else starts one on this machine.

    Returns:
        Whether a connection was made here, which is to be ended by `ray.shutdown`.

    Raises:
        RunError: no cluster answers.
    """
    if ray.is_initialized():
        return False
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RayError) as error:
        raise RunError(f"--executor ray: no cluster: {error}") from error
    return True


def places(*, on_gpu: bool) -> int:
    """GPUs of the cluster, else its CPUs: how much runs side by side where nobody says."""
    room: dict[str, float] = ray.cluster_resources()
    return max(1, int(room.get("GPU" if on_gpu else "CPU", 1)))
