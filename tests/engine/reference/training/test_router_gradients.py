"""Straight-through router gradients: the router's forward pass, the full softmax Jacobian backward."""

from __future__ import annotations

import pytest
import torch

from s1batch.engine.reference.router import route
from s1batch.engine.reference.training.router_gradients import route_straight_through

TOKENS, EXPERTS, GROUPS, TOP_K = 7, 12, 3, 6


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(TOKENS, EXPERTS, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 2


@pytest.mark.parametrize("renormalise", [True, False])
def test_weights_and_experts_are_the_routers(logits, renormalise):
    found = route_straight_through(logits, GROUPS, TOP_K, renormalise)
    wanted = route(logits, GROUPS, TOP_K, renormalise=renormalise)
    assert torch.equal(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1])


def test_the_gradient_is_the_jacobian_of_the_full_softmax_times_the_chosen_gradients(logits):
    """dL/dz = J^T g with J = diag(p) - p p^T written out, and g zero for those not chosen; in float64."""
    logits.requires_grad_()
    weights_Tk, ids_Tk = route_straight_through(logits, GROUPS, TOP_K)
    gradient_Tk = torch.randn(TOKENS, TOP_K, generator=torch.Generator().manual_seed(4))
    weights_Tk.backward(gradient_Tk)
    for token in range(TOKENS):
        p = torch.softmax(logits[token].detach(), dim=0)
        jacobian = torch.diag(p) - torch.outer(p, p)
        g = torch.zeros(EXPERTS, dtype=torch.float64)
        g[ids_Tk[token]] = gradient_Tk[token].double()
        torch.testing.assert_close(logits.grad[token], jacobian.T @ g, rtol=1e-12, atol=1e-14)


def test_experts_that_were_not_chosen_get_a_gradient_which_plain_differentiation_denies_them(logits):
    wanted = torch.randn(TOKENS, TOP_K, generator=torch.Generator().manual_seed(5))
    gradients = []
    for choose in (route_straight_through, route):
        leaf = logits.clone().requires_grad_()
        weights_Tk, ids_Tk = choose(leaf, GROUPS, TOP_K, renormalise=True)
        weights_Tk.backward(wanted)
        gradients.append(leaf.grad)
    left_out = torch.ones(TOKENS, EXPERTS, dtype=torch.bool).scatter(1, ids_Tk, False)
    assert (gradients[0][left_out].abs() > 1e-6).all()
    assert (gradients[1][left_out].abs() < 1e-6).all()


def test_groups_are_balanced_exactly(logits):
    """Every token takes the same number of experts from every group, whatever the logits."""
    _, ids_Tk = route_straight_through(logits * 50, GROUPS, TOP_K)
    groups = torch.nn.functional.one_hot(ids_Tk // (EXPERTS // GROUPS), GROUPS).sum(dim=1)
    assert (groups == TOP_K // GROUPS).all()
