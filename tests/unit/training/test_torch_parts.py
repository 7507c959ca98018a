"""The parts of real training, against what PyTorch itself and the kernel say."""

from __future__ import annotations

import socket

import pytest

from isl_emu.errors import WorkloadError
from isl_emu.nodes.tcp_info import own_bytes
from isl_emu.parts.training import part
from isl_emu.scenario.training import Real

FORM = Real(layers=1, width=16, heads=2, context=16, batch=4)


def torch_or_skip():
    return pytest.importorskip("torch", reason="real training needs PyTorch, the extra train")


def test_reports_are_endless_the_same_and_in_the_alphabet() -> None:
    torch_or_skip()
    from isl_emu.parts.training.transformer import ALPHABET, encoded, reports  # noqa: PLC0415  needs PyTorch

    text = reports(1, 5000)
    assert len(text) == 5000
    assert text == reports(1, 5000) != reports(2, 5000)
    assert set(text) <= set(ALPHABET)
    assert "".join(ALPHABET[place] for place in encoded(text)) == text


def test_bytes_are_those_that_went_over_tcp() -> None:
    sent, received = own_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        far, _ = server.accept()
        with far:
            near.sendall(b"x" * 12_345)
            while len(far.recv(1 << 20, socket.MSG_PEEK)) < 12_345:
                pass
            assert tuple(now - before for now, before in zip(own_bytes(), (sent, received))) == (12_345, 12_345)


def test_without_pytorch_one_sentence_says_what_to_do(monkeypatch) -> None:
    monkeypatch.setattr(part, "find_spec", lambda name: None)
    with pytest.raises(WorkloadError, match=r"PyTorch is not installed; install isl-emu with its extra"):
        part.check_torch()


def test_the_optimisers_do_as_those_of_pytorch() -> None:
    torch = torch_or_skip()
    from isl_emu.parts.training.torch_rank import AdamW, Nesterov  # noqa: PLC0415  needs PyTorch

    start, generator = torch.linspace(-1, 1, 20), torch.Generator().manual_seed(1)
    theirs = [torch.nn.Parameter(start.clone()) for _ in range(2)]
    ours = [start.clone() for _ in range(2)]
    adam, descent = torch.optim.AdamW([theirs[0]], lr=0.1), torch.optim.SGD([theirs[1]], 0.7, 0.9, nesterov=True)
    own = AdamW(20, 0.1), Nesterov(20, 0.7, 0.9)
    for _ in range(5):
        gradient = torch.randn(20, generator=generator)
        for parameter, optimiser in zip(theirs, (adam, descent)):
            parameter.grad = gradient.clone()
            optimiser.step()
        for parameter, optimiser in zip(ours, own):
            optimiser.step(parameter, gradient)
    for their, our in zip(theirs, ours):
        assert torch.allclose(their.detach(), our, atol=1e-6)


def test_an_optimiser_goes_on_from_the_state_of_another() -> None:
    torch = torch_or_skip()
    from isl_emu.parts.training.torch_rank import AdamW  # noqa: PLC0415  needs PyTorch

    first, second = AdamW(3, 0.1), AdamW(3, 0.1)
    weights, gradient = torch.zeros(3), torch.tensor([1.0, -2.0, 3.0])
    first.step(weights, gradient)
    second.state.copy_(first.state)
    copies = weights.clone(), weights.clone()
    first.step(copies[0], gradient)
    second.step(copies[1], gradient)
    assert torch.equal(*copies)


def test_a_model_learns_the_reports_and_sees_no_later_character() -> None:
    torch = torch_or_skip()
    from isl_emu.parts.training.transformer import Batches, Writer  # noqa: PLC0415  needs PyTorch

    model, batches = Writer(FORM, 1), Batches(FORM, 1, 0)
    batch = batches.batch(0)
    assert torch.equal(batch, batches.batch(0))
    assert not torch.equal(batch, Batches(FORM, 1, 1).batch(0))
    changed = batch[:, :-1].clone()
    changed[:, 9:] = 0
    assert torch.allclose(model(batch[:, :-1])[:, :9], model(changed)[:, :9], atol=1e-5)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for number in range(60):
        optimiser.zero_grad()
        losses.append(model.loss(batches.batch(number)))
        losses[-1].backward()
        optimiser.step()
    assert losses[-1].item() < 0.8 * losses[0].item()
