"""A GRU with a head over many users through time: torch's own equations, with the backward pass written out.

    r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)      z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
    a = W_hn h + b_hn                               n = tanh(W_in x + b_in + r a)
    h' = n + z (h - n)                              y = V leaky(U [x, h'] + c) + d

`torch.nn` records some fifty operations a step for it and allocates their results; here a step is a dozen operations
on memory that stays in the cache. Users stand last, so that gates are blocks of it. Inputs carry a last row of ones,
whose weights are the biases.

References:
    Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014; the equations are `torch.nn.GRU`'s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

SLOPE = 0.01
"""Of the head's leaky rectifier below zero."""
_SPARE = 2
"""Loans of a shape that are held; no more are needed at once."""


def through_time(inputs: Tensor, state: Tensor, gru: Sequence[Tensor], head: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the outputs [n, T, o] at every step, and the states [n, h] after the last.

    Args:
        inputs: [n, T, f].
        state: [n, h] before the first step.
        gru: weights [3 h, f] and [3 h, h] of r, z and n, biases [3 h] and [3 h], as `torch.nn.GRU` has them.
        head: weight [w, f + h] and bias [w] of its hidden layer, weight [o, w] and bias [o].
    """
    found: Any = _ThroughTime.apply(inputs, state, *gru, *head)
    return found


_leaky_relu_backward = torch.ops.aten.leaky_relu_backward.grad_input


class _ThroughTime(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, Tensor]:
        """Return what `through_time` does."""
        inputs, state, w_i, w_h, b_i, b_h, u, c, v, d = given
        (n, steps, f), h = inputs.shape, state.shape[1]
        memory = _Memory.lent(inputs, steps, n, f, h, len(u))
        memory.x[:, :f] = inputs.permute(1, 2, 0)
        memory.before[0] = state.T
        weight, into = _packed(w_i, w_h, b_i, b_h, u, c)
        outputs, offset = inputs.new_empty(steps, len(v), n), d[:, None]
        for views, y_t in zip(memory.forth, outputs.unbind(0), strict=True):
            _step(weight, into, views)
            torch.addmm(offset, v, views[-1], out=y_t)
        ctx.save_for_backward(weight, into, v)
        ctx.memory = _Loan(memory)
        return outputs.permute(2, 0, 1), memory.after[-1].T.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        """Return the gradients of what `forward` took."""
        weight, into, v = ctx.saved_tensors
        memory: _Memory = ctx.memory.lent
        f, h = memory.inputs, memory.states
        of_outputs = gradients[0].permute(1, 2, 0).contiguous()
        of_state = gradients[1].T.contiguous()
        weight_back, into_back, v_back = (part.T.contiguous() for part in (weight[: 3 * h, :h], into[:, f + 1 :], v))
        of_gates, products, slope = (torch.empty_like(memory.gates[0, : rows * h]) for rows in (4, 2, 2))
        of_rz, of_rza, (_, _, of_a, of_n) = of_gates[: 2 * h], of_gates[: 3 * h], of_gates.split(h)
        of_r, of_z = products.split(h)
        of_hidden = torch.empty_like(memory.hidden[0])
        of_weight, of_into, of_v = (torch.zeros_like(part) for part in (weight, into, v))
        of_inputs = torch.empty_like(memory.x[:, :f]) if ctx.needs_input_grad[0] else None
        back = len(memory.back)
        for (hx_t, xh_t, across_t, h_t, rz_t, r_t, z_t, a_t, n_t, hidden_t), of_y in zip(
            memory.back, of_outputs.unbind(0)[::-1], strict=True
        ):
            of_v.addmm_(of_y, across_t)
            torch.mm(v_back, of_y, out=of_hidden)
            _leaky_relu_backward(of_hidden, hidden_t, SLOPE, True, grad_input=of_hidden)
            of_into.addmm_(of_hidden, xh_t)
            of_state.addmm_(into_back, of_hidden)
            torch.addcmul(of_state, of_state, z_t, value=-1.0, out=of_n)
            torch.mul(of_n, n_t, out=of_a)
            of_n.addcmul_(of_a, n_t, value=-1.0)  # through tanh
            torch.mul(of_n, a_t, out=of_r)
            torch.sub(h_t, n_t, out=of_z).mul_(of_state)
            torch.addcmul(rz_t, rz_t, rz_t, value=-1.0, out=slope)
            torch.mul(products, slope, out=of_rz)  # through sigmoid
            torch.mul(of_n, r_t, out=of_a)
            of_weight.addmm_(of_gates, hx_t)
            of_state.mul_(z_t).addmm_(weight_back, of_rza)
            if of_inputs is not None:
                back -= 1
                torch.mm(weight[:, h:-1].T, of_gates, out=of_inputs[back]).addmm_(into[:, :f].T, of_hidden)
        of_w_h, of_x, of_1 = of_weight.split((h, f, 1), dim=1)
        of_u_x, of_c, of_u_h = of_into.split((f, 1, h), dim=1)
        of_inner = torch.cat([of_1[: 2 * h, 0], of_1[3 * h :, 0]])
        return (
            None if of_inputs is None else of_inputs.permute(2, 0, 1),
            of_state.T,
            torch.cat([of_x[: 2 * h], of_x[3 * h :]]),
            of_w_h[: 3 * h],
            of_inner,
            of_1[: 3 * h, 0],
            torch.cat([of_u_x, of_u_h], dim=1),
            of_c[:, 0],
            of_v,
            of_outputs.sum((0, 2)),
        )


class Stepper:
    """The same step by step, without gradients: called with inputs [n, f] it returns outputs [n, o].

    Args:
        gru: as in `through_time`.
        head: as in `through_time`.
        users: n; they start in state zero.
    """

    def __init__(self, gru: Sequence[Tensor], head: Sequence[Tensor], users: int) -> None:
        w_i, w_h, b_i, b_h, u, c, v, d = (part.detach() for part in (*gru, *head))
        self._weight, self._into = _packed(w_i, w_h, b_i, b_h, u, c)
        self._out, self._offset = v, d[:, None]
        self._memory = _Memory((u.dtype, u.device, 1, users, w_i.shape[1], w_h.shape[1], len(u)))
        self._memory.before.zero_()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Go on one step."""
        memory, (views,) = self._memory, self._memory.forth
        memory.x[0, :-1] = inputs.T
        _step(self._weight, self._into, views)
        memory.before.copy_(memory.after)
        return torch.addmm(self._offset, self._out, views[-1]).T


def _step(weight: Tensor, into: Tensor, views: tuple[Tensor, ...]) -> None:
    hx, h, after, xh, gates, rz, r, z, a, new, hidden = views
    torch.mm(weight, hx, out=gates)
    rz.sigmoid_()
    new.addcmul_(r, a).tanh_()
    torch.lerp(new, h, z, out=after)
    functional.leaky_relu_(torch.mm(into, xh, out=hidden), SLOPE)


def _packed(w_i: Tensor, w_h: Tensor, b_i: Tensor, b_h: Tensor, u: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights of h, x and 1 for r, z, a and n's part without h, and those of x, 1 and h' for the head."""
    h, f = w_h.shape[1], w_i.shape[1]
    weight = w_h.new_zeros(4 * h, h + f + 1)
    weight[: 3 * h, :h] = w_h
    weight[: 2 * h, h:-1], weight[: 2 * h, -1] = w_i[: 2 * h], (b_i + b_h)[: 2 * h]
    weight[2 * h : 3 * h, -1] = b_h[2 * h :]
    weight[3 * h :, h:-1], weight[3 * h :, -1] = w_i[2 * h :], b_i[2 * h :]
    return weight, torch.cat([u[:, :f], c[:, None], u[:, f:]], dim=1)


class _Memory:
    """What every step of a pass leaves for the way back, and the views of it that the steps work on.

    Making both costs as much as the arithmetic does, so passes of the same shape take turns on the same memory.
    """

    free: ClassVar[defaultdict[tuple[Any, ...], list[_Memory]]] = defaultdict(list)

    def __init__(self, key: tuple[Any, ...]) -> None:
        dtype, device, steps, n, f, h, width = self.key = key
        self.inputs, self.states = f, h
        self.gates = torch.empty(steps, 4 * h, n, dtype=dtype, device=device)  # r, z, a and n
        self.hidden = torch.empty(steps, width, n, dtype=dtype, device=device)
        # h, x, 1, h', x', 1, h'' and so on: what a step sees and leaves are windows of it
        chain = torch.empty(steps * (h + f + 1) + h, n, dtype=dtype, device=device)
        seen = chain.as_strided((steps, h + f + 1 + h, n), ((h + f + 1) * n, n, 1))
        self.before, self.x, self.after = seen.split((h, f + 1, h), dim=1)
        self.x[:, f] = 1.0
        rz, (r, z, a, new) = self.gates[:, : 2 * h], self.gates.split(h, dim=1)
        hx, xh, before = seen[:, : h + f + 1], seen[:, h:], self.before
        forth = (hx, before, self.after, xh, self.gates, rz, r, z, a, new, self.hidden)
        self.forth = list(zip(*(part.unbind(0) for part in forth), strict=True))
        across = (part.transpose(1, 2) for part in (hx, xh, self.hidden))
        back = (*across, before, rz, r, z, a, new, self.hidden)
        self.back = list(zip(*(part.unbind(0)[::-1] for part in back), strict=True))

    @classmethod
    def lent(cls, like: Tensor, *sizes: int) -> _Memory:
        key = (like.dtype, like.device, *sizes)
        return cls.free[key].pop() if cls.free[key] else cls(key)


class _Loan:
    """Gives memory back when the graph that holds it goes."""

    def __init__(self, lent: _Memory) -> None:
        self.lent = lent

    def __del__(self) -> None:
        if len(free := _Memory.free[self.lent.key]) < _SPARE:
            free.append(self.lent)
