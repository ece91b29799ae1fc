"""MobileStyleGAN's blocks on the CPU, in strips of rows that stay in the cache.

Layer by layer, every operation of a step moves activations of up to 67 MB through memory. Here a
block is computed a strip of rows at a time, all its layers before the next strip, so that memory
sees each activation written once and read once on the way back.

The gradient goes to the styles and the noise, never to the weights. A layer is x' =
LeakyReLU(depthwise(x) · (style · kernel) + noise + bias), so the way back needs its x' alone, for
the LeakyReLU's sign, and its x, for style's gradient Σ x ⊙ (∂x / style) over the pixels. Styles
are folded into the 1×1 kernels and the wavelet's factors, which costs no pass over the pixels.

Everything is computed and stored in the kernels' type, float32 or bf16; image and gradients come
out in the type of the input. Sums over strips are kept in float32.

Counted for one image at 1024²: 14.6 GFLOP forward and as many back, 257 MB of activations. At 164
GFLOP/s and 11 GB/s (two cores, measured) the floor is 0.18 s of arithmetic + 0.05 s of memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

SLOPE = 0.2
STRIP_BYTES = 2 << 20
"""Of a layer's strip, so that a few of them fit the cache; half and twice as much are as fast."""


class Separable(NamedTuple):
    """A depthwise 3×3 convolution [I, 1, 3, 3], then a 1×1 kernel [O, I] and a bias [O]."""

    depthwise: Tensor
    kernel: Tensor
    bias: Tensor

    def to(self, dtype: torch.dtype) -> Separable:
        return Separable(*(part.to(dtype) for part in self))


Block = tuple[Separable, Separable]


class Workspaces:
    """Keeps the memory of finished passes: fresh pages cost as much as the work done on them."""

    def __init__(self) -> None:
        self.idle: dict[tuple[int, torch.dtype], list[Tensor]] = {}

    def __reduce__(self) -> tuple[type[Workspaces], tuple[()]]:
        return Workspaces, ()  # copies and pickles of a generator start empty

    def lease(self, numel: int, dtype: torch.dtype) -> Lease:
        idle = self.idle.setdefault((numel, dtype), [])
        try:
            return Lease(idle, idle.pop())
        except IndexError:
            with torch.inference_mode(False):  # a buffer may serve both modes
                return Lease(idle, torch.empty(numel, dtype=dtype))


class Lease:
    """A flat buffer, idle again once the pass that holds it is forgotten."""

    def __init__(self, idle: list[Tensor], buffer: Tensor) -> None:
        self.idle, self.buffer = idle, buffer

    def __del__(self) -> None:
        self.idle.append(self.buffer)


class StripSynthesis(torch.autograd.Function):
    """All blocks and the output layer, for one image, in the type of the blocks' kernels.

    Inputs that may require a gradient: `x` [h, w, C], the first block's input; `to_rgb`
    [12, C], the modulated output kernel; and for each block `bands_scale` [4*C], the style of
    its wavelet's bands times that of its first convolution, halved; `scale` [C] of its second;
    and two noise maps [H, W] times their strength. Returns the image [3, R, R].
    """

    @staticmethod
    def forward(
        ctx: Any,
        workspaces: Workspaces,
        blocks: Sequence[Block],
        to_rgb_bias: Tensor,
        to_rgb: Tensor,
        x: Tensor,
        *modulation: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(to_rgb, x, *modulation)
        image = x.new_empty(3, *(side << len(blocks) + 1 for side in x.shape[:2]))
        ctx.dtype = to_rgb_bias.dtype
        to_rgb, x, *styles = in_type(ctx.dtype, to_rgb, x, *modulation)
        lease = workspaces.lease(sum(sum(s) for s in _activation_sizes(blocks, x)), x.dtype)
        activations = _activations(blocks, x, lease.buffer)
        inputs = [x, *(out for _, out in activations)]
        for i, block in enumerate(blocks):
            _forward(block, inputs[i], styles[4 * i : 4 * i + 4], *activations[i])
        ctx.workspaces, ctx.blocks, ctx.lease = workspaces, blocks, lease
        _to_image(inputs[-1], to_rgb, to_rgb_bias, image)
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        to_rgb, x, *modulation = in_type(ctx.dtype, *ctx.saved_tensors)
        activations = _activations(ctx.blocks, x, ctx.lease.buffer)
        inputs = [x, *(out for _, out in activations)]
        sizes = [out.numel() for out in inputs[:-1]]
        lease = ctx.workspaces.lease(sum(sizes), x.dtype)
        buffers = [b.view_as(i) for b, i in zip(lease.buffer.split(sizes), inputs, strict=False)]
        rgb_gradient = torch.zeros_like(to_rgb, dtype=exact(x.dtype))
        upstream = _image_gradient(gradient.to(x.dtype), inputs[-1], to_rgb, rgb_gradient)
        gradients: list[Tensor | None] = []
        for i in reversed(range(len(ctx.blocks))):
            of_noise = ctx.needs_input_grad[5 + 4 * i + 2], ctx.needs_input_grad[5 + 4 * i + 3]
            gradients[:0] = _backward(
                ctx.blocks[i],
                inputs[i],
                modulation[4 * i : 4 * i + 4],
                *activations[i],
                upstream,
                of_noise,
                buffers[i],
            )
            upstream = buffers[i].__getitem__
        return None, None, None, rgb_gradient, buffers[0].clone(), *gradients


def in_type(dtype: torch.dtype, *tensors: Tensor) -> list[Tensor]:
    return [tensor.to(dtype) for tensor in tensors]


def exact(dtype: torch.dtype) -> torch.dtype:
    """The type for long sums of numbers of a type."""
    return torch.promote_types(dtype, torch.float32)


class Depthwise:
    """A depthwise 3×3 convolution of rows that come strip by strip; its output lags by a row."""

    def __init__(self, kernel: Tensor, width: int, rows: int) -> None:
        self.kernel = kernel
        self.buffer = kernel.new_zeros(rows + 4, width, len(kernel))
        self.filled = 1  # the row of zeros above the first

    def room(self, rows: int) -> Float[Tensor, "rows W C"]:
        """Where the next `rows` rows are to be written before `push`."""
        return self.buffer[self.filled : self.filled + rows]

    def push(self, rows: int, last: bool) -> Float[Tensor, "rows W C"]:
        """The output rows that the rows written so far allow; all that are left if `last`."""
        end = self.filled + rows
        if last:
            self.buffer[end].zero_()
            end += 1
        out = correlate(self.buffer[:end], self.kernel)
        self.buffer[:2] = self.buffer[end - 2 : end]
        self.filled = 2
        return out


def correlate(x: Float[Tensor, "H+2 W C"], kernel: Tensor) -> Float[Tensor, "H W C"]:
    """Depthwise 3×3 of rows with their upper and lower neighbours; columns are padded here."""
    out = F.conv2d(x[None].permute(0, 3, 1, 2), kernel, padding=(0, 1), groups=len(kernel))
    return out.permute(0, 2, 3, 1)[0].contiguous()


def _strips(x: Float[Tensor, "H W C"]) -> list[slice]:
    """Ranges of rows, all of the same even number of them."""
    rows = len(x)
    while rows > 4 and rows * x[0].numel() * x.element_size() > STRIP_BYTES:
        rows //= 2
    return [slice(top, top + rows) for top in range(0, len(x), rows)]


def _activation_sizes(blocks: Sequence[Block], x: Tensor) -> list[tuple[int, int]]:
    """Of each block's two activations, in numbers; the first has a row of zeros on both sides."""
    sizes = []
    for level, (first, _) in enumerate(blocks, 1):
        height, width, channels = x.shape[0] << level, x.shape[1] << level, len(first.bias)
        sizes.append(((height + 2) * width * channels, height * width * channels))
    return sizes


def _activations(
    blocks: Sequence[Block], x: Tensor, buffer: Tensor
) -> list[tuple[Float[Tensor, "H+2 W C"], Float[Tensor, "H W C"]]]:
    sizes = _activation_sizes(blocks, x)
    parts = iter(buffer.split([size for pair in sizes for size in pair]))
    views = []
    for level, (first, _) in enumerate(blocks, 1):
        width, channels = x.shape[1] << level, len(first.bias)
        views.append(tuple(next(parts).view(-1, width, channels) for _ in range(2)))
    return views


def _forward(
    block: Block, x: Tensor, modulation: Sequence[Tensor], padded: Tensor, out: Tensor
) -> None:
    """Writes the block's two activations of its input `x` [H/2, W/2, 4*C]."""
    first, second = block
    bands_scale, scale, *noise = modulation
    kernel1 = first.kernel.T
    kernel2 = (second.kernel * scale).T
    height, width, _ = out.shape
    strips = _strips(out)
    depthwise = Depthwise(first.depthwise, width, strips[0].stop)
    padded[0].zero_()
    padded[-1].zero_()
    inner = padded[1:-1]
    done1 = done2 = 0
    for rows in strips:
        last, count = rows.stop == height, rows.stop - rows.start
        bands = x[rows.start // 2 : rows.stop // 2] * bands_scale
        inverse_butterfly(bands, depthwise.room(count))
        v = depthwise.push(count, last)
        end1 = done1 + len(v)
        _activate(v, kernel1, first.bias, noise[0][done1:end1], inner[done1:end1])
        end2 = height if last else end1 - 1
        v = correlate(padded[done2 : end2 + 2], second.depthwise)
        _activate(v, kernel2, second.bias, noise[1][done2:end2], out[done2:end2])
        done1, done2 = end1, end2


def _activate(v: Tensor, kernel: Tensor, bias: Tensor, noise: Tensor, out: Tensor) -> None:
    torch.add(noise[:, :, None], bias, out=out)
    out.flatten(0, 1).addmm_(v.flatten(0, 1), kernel)
    F.leaky_relu_(out, SLOPE)


def _backward(
    block: Block,
    x: Tensor,
    modulation: Sequence[Tensor],
    padded: Tensor,
    out: Tensor,
    upstream: Callable[[slice], Tensor],
    of_noise: tuple[bool, bool],
    x_gradient: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Writes the gradient of `x`; returns those of the modulation.

    `upstream(rows)` gives the gradient of those rows of `out`; it is overwritten.
    """
    first, second = block
    bands_scale, scale, *noise = modulation
    kernel1 = first.kernel * scale[:, None]
    kernel2 = second.kernel
    height, width, _ = out.shape
    strips = _strips(out)
    depthwise1 = Depthwise(first.depthwise.flip(2, 3), width, strips[0].stop)
    depthwise2 = Depthwise(second.depthwise.flip(2, 3), width, strips[0].stop)
    inner = padded[1:-1]
    bands_gradient, scale_gradient = (
        torch.zeros_like(style, dtype=exact(x.dtype)) for style in (bands_scale, scale)
    )
    noise_gradient = [
        torch.empty_like(n) if w else None for n, w in zip(noise, of_noise, strict=True)
    ]
    done1 = done0 = 0
    for rows in strips:
        last, count = rows.stop == height, rows.stop - rows.start
        g = upstream(rows)
        _through_activation_(g, out[rows])
        if noise_gradient[1] is not None:
            noise_gradient[1][rows] = g.sum(2)
        torch.mm(g.flatten(0, 1), kernel2, out=depthwise2.room(count).flatten(0, 1))
        g = depthwise2.push(count, last)
        count = len(g)
        here = slice(done1, done1 + count)
        scale_gradient += (g * inner[here]).sum((0, 1), dtype=exact(x.dtype))
        _through_activation_(g, inner[here])
        if noise_gradient[0] is not None:
            noise_gradient[0][here] = g @ scale
        torch.mm(g.flatten(0, 1), kernel1, out=depthwise1.room(count).flatten(0, 1))
        g = butterfly(depthwise1.push(count, last))
        below = slice(done0, done0 + len(g))
        bands_gradient += (g * x[below]).sum((0, 1), dtype=exact(x.dtype))
        torch.mul(g, bands_scale, out=x_gradient[below])
        done1, done0 = here.stop, below.stop
    return bands_gradient, scale_gradient, noise_gradient[0], noise_gradient[1]


def _through_activation_(gradient: Tensor, activation: Tensor) -> None:
    """Gradient before a LeakyReLU from the one after it, in place."""
    torch.ops.aten.leaky_relu_backward.grad_input(
        gradient, activation, SLOPE, True, grad_input=gradient
    )


def inverse_butterfly(bands: Float[Tensor, "H W 4*C"], out: Float[Tensor, "2*H 2*W C"]) -> None:
    """Twice the inverse Haar wavelet: sums and differences of the four bands."""
    height, width, _ = bands.shape
    x = bands.view(height, width, 2, 2, -1)
    y = out.view(height, 2, width, 2, -1)
    plus, minus = x[:, :, :, 0] + x[:, :, :, 1], x[:, :, :, 0] - x[:, :, :, 1]
    for row, part in enumerate((plus, minus)):
        torch.add(part[:, :, 0], part[:, :, 1], out=y[:, row, :, 0])
        torch.sub(part[:, :, 0], part[:, :, 1], out=y[:, row, :, 1])


def butterfly(image: Float[Tensor, "2*H 2*W C"]) -> Float[Tensor, "H W 4*C"]:
    """Twice the Haar wavelet, the adjoint of `inverse_butterfly`."""
    height, width, channels = len(image) // 2, image.shape[1] // 2, image.shape[2]
    y = image.view(height, 2, width, 2, channels)
    x = image.new_empty(height, width, 2, 2, channels)
    for column, combine in enumerate((torch.add, torch.sub)):
        part = combine(y[:, :, :, 0], y[:, :, :, 1])
        torch.add(part[:, 0], part[:, 1], out=x[:, :, column, 0])
        torch.sub(part[:, 0], part[:, 1], out=x[:, :, column, 1])
    return x.flatten(2)


def _to_image(
    x: Float[Tensor, "H W C"], to_rgb: Tensor, bias: Tensor, image: Float[Tensor, "3 2*H 2*W"]
) -> None:
    height, width, _ = x.shape
    planes = image.view(3, height, 2, width, 2).permute(0, 2, 4, 1, 3)
    for rows in _strips(x):
        rgb = torch.addmm(bias[:, None], to_rgb, x[rows].flatten(0, 1).T)
        planes[:, :, :, rows].copy_(rgb.view(3, 2, 2, -1, width))


def _image_gradient(
    gradient: Float[Tensor, "3 2*H 2*W"],
    x: Float[Tensor, "H W C"],
    to_rgb: Tensor,
    to_rgb_gradient: Tensor,
) -> Callable[[slice], Tensor]:
    height, width, _ = x.shape
    planes = gradient.reshape(3, height, 2, width, 2).permute(0, 2, 4, 1, 3)

    def upstream(rows: slice) -> Tensor:
        g = planes[:, :, :, rows].reshape(12, -1)
        to_rgb_gradient.add_(g @ x[rows].flatten(0, 1))
        return (g.T @ to_rgb).view(-1, width, x.shape[2])

    return upstream
