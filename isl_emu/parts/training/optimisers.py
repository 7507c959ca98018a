"""The optimisers of training, on one flat vector of parameters: what they remember is a vector too, and can be sent.

torch.optim has the same, but loading it takes each rank 85 MB and several seconds in a guest.
"""

from __future__ import annotations

import torch


class AdamW:
    """Adam with decoupled weight decay, at a constant rate.

    Source: Loshchilov and Hutter 2019, Decoupled weight decay regularization, algorithm 2; constants as in torch.optim.
    """

    BETA_1, BETA_2, EPSILON, DECAY = 0.9, 0.999, 1e-8, 0.01

    def __init__(self, size: int, rate: float):
        self._rate = rate
        self.state = torch.zeros(2 * size + 1)  # first moments, second moments, number of steps
        self._first, self._second, self._steps = self.state.split([size, size, 1])

    def step(self, parameters: torch.Tensor, gradient: torch.Tensor) -> None:
        """Move the parameters, in place."""
        self._steps += 1
        steps = float(self._steps)
        self._first.lerp_(gradient, 1 - self.BETA_1)
        self._second.mul_(self.BETA_2).addcmul_(gradient, gradient, value=1 - self.BETA_2)
        spread = (self._second / (1 - self.BETA_2**steps)).sqrt_().add_(self.EPSILON)
        parameters.mul_(1 - self._rate * self.DECAY)
        parameters.addcdiv_(self._first, spread, value=-self._rate / (1 - self.BETA_1**steps))


class Nesterov:
    """Gradient descent with Nesterov's momentum: DiLoCo's outer optimiser.

    Source: Sutskever et al. 2013, On the importance of initialization and momentum, as torch.optim.SGD writes it.
    """

    def __init__(self, size: int, rate: float, momentum: float):
        self._rate, self._momentum = rate, momentum
        self.state = torch.zeros(size)

    def step(self, parameters: torch.Tensor, gradient: torch.Tensor) -> None:
        """Move the parameters, in place."""
        self.state.mul_(self._momentum).add_(gradient)
        parameters.add_(gradient + self._momentum * self.state, alpha=-self._rate)
