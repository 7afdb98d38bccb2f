"""Published figures of devices, dense (without the doubling by sparsity that data sheets print for TF32)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    name: str
    # Word of the name that the driver gives, all of them in it.
    words: tuple
    memory_gb: int
    bandwidth_gb_per_s: float
    # TFLOP/s.
    tf32: float
    fp32: float
    fp64: float
    l2_mb: int
    # One direction of the PCIe connection of 16 lanes.
    bus_gb_per_s: float
    source: str

    def seconds(self, operation):
        """Least time of an operation, and what bounds it."""
        if operation.crosses_bus:
            return operation.bytes / (self.bus_gb_per_s * 1e9), "bus"
        times = {
            "memory": operation.bytes / (self.bandwidth_gb_per_s * 1e9),
            "TF32": operation.tf32 / (self.tf32 * 1e12),
            "FP32": operation.fp32 / (self.fp32 * 1e12),
            "FP64": operation.fp64 / (self.fp64 * 1e12),
        }
        bound = max(times, key=times.get)
        return times[bound], bound


DEVICES = [
    Device("A100 40 GB", ("A100", "40GB"), 40, 1555, 156, 19.5, 9.7, 40, 32, "NVIDIA's data sheet of the A100 (SXM and PCIe)"),
    Device("A100 80 GB", ("A100", "80GB"), 80, 2039, 156, 19.5, 9.7, 40, 32, "NVIDIA's data sheet of the A100 (SXM)"),
    Device("L4", ("L4",), 24, 300, 60, 30.3, 0.47, 48, 32, "NVIDIA's data sheet of the L4; FP64 is 1/64 of FP32"),
    Device("RTX 4090", ("RTX", "4090"), 24, 1008, 82.6, 82.6, 1.29, 72, 32, "NVIDIA's white paper on the Ada architecture, appendix on the RTX 4090"),
    Device("H100 SXM", ("H100", "HBM3"), 80, 3350, 494.5, 67, 34, 50, 64, "NVIDIA's data sheet of the H100 (SXM)"),
    Device("H200", ("H200",), 141, 4800, 494.5, 67, 34, 50, 64, "NVIDIA's data sheet of the H200 (SXM)"),
]


def device_named(name):
    """The device that the driver calls `name`, or None."""
    words = name.replace("-", " ").split()
    return next((device for device in DEVICES if all(word in words for word in device.words)), None)
