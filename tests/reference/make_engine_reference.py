"""Writes engine.safetensors and resnet-basic.safetensors beside this file: what PyTorch computes for Adam, affine warps,
Fourier images and a ResNet of basic blocks. Needs torch and safetensors:  python make_engine_reference.py
"""
import os
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
torch.manual_seed(0)
reference = {}


def adam(name, learning_rate, betas, weight_decay):
    """12 steps of 7 values: start, gradients [12, 7], values after each step [12, 7]."""
    start, gradients, values = torch.randn(7), torch.randn(12, 7), []
    gradients[3] = 0.0
    parameter = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([parameter], learning_rate, betas, weight_decay=weight_decay, foreach=False)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimiser.step()
        values.append(parameter.detach().clone())
    reference.update({f"{name}.start": start, f"{name}.gradients": gradients, f"{name}.values": torch.stack(values)})


adam("adam_inversion", 0.25, (0.5, 0.99), 0.0)
adam("adam_default", 1e-3, (0.9, 0.999), 0.0)
adam("adam_decay", 1e-2, (0.9, 0.999), 0.1)

# Affine warp: angle, scale, shift down, shift right; torch measures shifts in half sides.
source, upstream = torch.randn(3, 3, 9, 9, requires_grad=True), torch.randn(3, 3, 9, 9)
parameters = torch.tensor([[0.2, 1.1, 0.05, -0.03], [-2.5, 0.6, -0.4, 0.7], [0.0, 1.9, 0.0, 1.3]])
angle, scale, down, right = parameters.T
rows = [torch.stack([scale * angle.cos(), -scale * angle.sin(), 2 * right], 1), torch.stack([scale * angle.sin(), scale * angle.cos(), 2 * down], 1)]
grid = F.affine_grid(torch.stack(rows, 1), source.shape, align_corners=False)
warped = F.grid_sample(source, grid, align_corners=False, padding_mode="reflection")
warped.backward(upstream)
reference.update({"affine.source": source.detach(), "affine.parameters": parameters, "affine.warped": warped.detach(),
                  "affine.dwarped": upstream, "affine.dsource": source.grad})

# Fourier images of an odd and an even width, normalised.
mean, deviation = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
for name, side in (("fourier_odd", 7), ("fourier_even", 8)):
    frequency = (torch.fft.fftfreq(side)[:, None] ** 2 + torch.fft.rfftfreq(side)[None] ** 2).sqrt()
    spectrum = torch.randn(2, 3, side, side // 2 + 1, 2, requires_grad=True)
    scaled = torch.view_as_complex(spectrum) * (0.6 / torch.clamp(frequency, min=1 / side))
    images = (torch.sigmoid(torch.fft.irfft2(scaled, s=(side, side), norm="ortho")) - mean) / deviation
    upstream = torch.randn_like(images)
    images.backward(upstream)
    reference.update({f"{name}.spectrum": spectrum.detach(), f"{name}.images": images.detach(), f"{name}.dimages": upstream,
                      f"{name}.dspectrum": spectrum.grad})

# A ResNet of basic blocks (torchvision's names and strides): two blocks in layer1, one in the others.
weights = {}


def new_unit(convolution, norm, inputs, outputs, kernel):
    weights[f"{convolution}.weight"] = torch.randn(outputs, inputs, kernel, kernel) * (2 / (inputs * kernel * kernel)) ** 0.5
    weights[f"{norm}.weight"], weights[f"{norm}.bias"] = torch.rand(outputs) + 0.5, 0.3 * torch.randn(outputs)
    weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"] = 0.3 * torch.randn(outputs), torch.rand(outputs) + 0.5
    weights[f"{norm}.num_batches_tracked"] = torch.tensor(3)


new_unit("conv1", "bn1", 3, 6, 7)
plan = [("layer1.0", 6, 6, 1), ("layer1.1", 6, 6, 1), ("layer2.0", 6, 8, 2), ("layer3.0", 8, 10, 2), ("layer4.0", 10, 12, 2)]
for block, inputs, outputs, stride in plan:
    new_unit(f"{block}.conv1", f"{block}.bn1", inputs, outputs, 3)
    new_unit(f"{block}.conv2", f"{block}.bn2", outputs, outputs, 3)
    if stride == 2:
        new_unit(f"{block}.downsample.0", f"{block}.downsample.1", inputs, outputs, 1)
weights["fc.weight"], weights["fc.bias"] = torch.randn(5, 12), torch.randn(5)
terms = {}


def unit(x, convolution, norm, stride):
    x = F.conv2d(x, weights[f"{convolution}.weight"], stride=stride, padding=weights[f"{convolution}.weight"].shape[-1] // 2)
    mean_difference = x.mean((0, 2, 3)) - weights[f"{norm}.running_mean"]
    variance_difference = x.var((0, 2, 3), unbiased=False) - weights[f"{norm}.running_var"]
    terms[norm] = mean_difference.norm() + variance_difference.norm()
    return F.batch_norm(x, weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"], weights[f"{norm}.weight"], weights[f"{norm}.bias"])


pixels = torch.randn(3, 3, 33, 29, requires_grad=True)
x = F.max_pool2d(unit(pixels, "conv1", "bn1", 2).relu(), 3, 2, 1)
for block, _, _, stride in plan:
    y = unit(unit(x, f"{block}.conv1", f"{block}.bn1", stride).relu(), f"{block}.conv2", f"{block}.bn2", 1)
    x = (y + (unit(x, f"{block}.downsample.0", f"{block}.downsample.1", stride) if stride == 2 else x)).relu()
prior = sum(terms.values())
prior.backward()
reference.update({"basic.pixel_values": pixels.detach(), "basic.logits": F.linear(x.mean((2, 3)), weights["fc.weight"], weights["fc.bias"]).detach(),
                  "basic.prior": prior.detach().reshape(1), "basic.prior_grad_pixels": pixels.grad})
reference.update({f"basic.prior.{name}": value.detach().reshape(1) for name, value in terms.items()})

save_file({name: value.contiguous() for name, value in reference.items()}, os.path.join(HERE, "engine.safetensors"))
save_file({name: value.contiguous() for name, value in weights.items()}, os.path.join(HERE, "resnet-basic.safetensors"))
