"""Adam on the parameters of an encoder, by PyTorch's own kernel."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

__all__ = ["Adam"]


class Adam:
    """Moves every parameter as ``torch.optim.Adam(fused=True)`` does, bit for bit.

    That class loads PyTorch's compiler when it is built, which costs a process some 70 MB and 2 seconds, and none of it
    is used here; the function behind it does not.

    Args:
        parameters: What is trained; those that ask for no gradient are left alone.

    Attributes:
        state: ``step``, ``exp_avg`` and ``exp_avg_sq`` of each parameter.

    Reference:
        Kingma and Ba, Adam: A Method for Stochastic Optimization, ICLR 2015.

    >>> weight = nn.Parameter(torch.tensor([1.0]))
    >>> weight.grad = torch.tensor([3.0])
    >>> Adam([weight]).step(learning_rate=0.25)
    >>> round(weight.item(), 4)  # the first step is as long as the learning rate
    0.75
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {
            parameter: {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
            }
            for parameter in parameters
            if parameter.requires_grad
        }

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move every parameter that has a gradient, and free the gradients: the next forward pass can use their memory."""
        moved = [parameter for parameter in self.state if parameter.grad is not None]
        states = [self.state[parameter] for parameter in moved]
        adam(
            list[Tensor](moved),
            [parameter.grad for parameter in moved if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )
        for parameter in moved:
            parameter.grad = None
