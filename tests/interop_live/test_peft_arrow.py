"""Arrow computes what a layer of PEFT's Arrow computes on the same adapters."""

import jax.numpy as jnp
import numpy as np

from poly_jax.adapters.lora import LoRA
from poly_jax.routing.arrow import ArrowRouter
from poly_jax.routing.router import Sizes

D_IN, D_OUT, RANK, SKILLS = 12, 10, 4, 5


def factors():
    """Random LoRA factors. PEFT takes 15 steps of power iteration, which is enough where they have gaps."""
    rng = np.random.default_rng(0)
    strengths = np.array([1.0, 0.4, 0.2, 0.1])
    a = rng.normal(size=(SKILLS, D_IN, RANK)) * strengths
    b = rng.normal(size=(SKILLS, RANK, D_OUT)) * strengths[:, None]
    return a.astype(np.float32), b.astype(np.float32)


def peft_outputs(a, b, x, alpha, top_k, temperature):
    """The prototypes and the update of a layer of PEFT's Arrow."""
    import torch
    from peft import ArrowConfig
    from peft.tuners.lora.arrow import ArrowLoraLinearLayer

    names = [f"task_{i}" for i in range(SKILLS)]
    config = ArrowConfig(top_k=top_k, router_temperature=temperature, rng_seed=0)
    config.task_adapter_names, config.gks_adapter_names = names, []
    down = torch.nn.ModuleDict({name: torch.nn.Linear(D_IN, RANK, bias=False) for name in names})
    up = torch.nn.ModuleDict({name: torch.nn.Linear(RANK, D_OUT, bias=False) for name in names})
    for i, name in enumerate(names):
        down[name].weight.data = torch.tensor(a[i].T.copy())
        up[name].weight.data = torch.tensor(b[i].T.copy())
    layer = ArrowLoraLinearLayer(D_IN, config)
    layer.build_prototypes(down, up)
    scaling = dict.fromkeys(names, alpha / RANK)
    with torch.no_grad():
        update = layer(torch.tensor(x), down, up, torch.nn.Identity(), scaling)
    return layer.prototypes.numpy(), update.numpy()


def test_arrow_has_the_prototypes_and_the_outputs_of_peft():
    a, b = factors()
    x = np.random.default_rng(1).normal(size=(3, 7, D_IN)).astype(np.float32)
    skills = {"lora_a": jnp.asarray(a[None]), "lora_b": jnp.asarray(b[None])}
    sizes = Sizes(n_tasks=1, n_splits=1, n_skills=SKILLS)
    for top_k, temperature, alpha in ((3, 1.0, 8.0), (1, 0.5, 2.0), (SKILLS, 2.0, 4.0)):
        prototypes, update = peft_outputs(a, b, x, alpha, top_k, temperature)
        router = ArrowRouter(top_k=top_k, temperature=temperature)
        parameters = router.from_skills(skills)
        found = np.asarray(parameters["prototypes"])
        signs = np.sign((found * prototypes).sum(-1, keepdims=True))
        np.testing.assert_allclose(signs * found, prototypes, atol=1e-5)
        weights = router.input_weights(parameters, jnp.asarray(x), np.zeros((3, 7), int), sizes, None)
        weights = weights[:, :, None]
        skill = LoRA(rank=RANK, alpha=alpha)
        frozen = jnp.zeros((3, 7, D_OUT))
        outputs = skill.apply_by_token(skill.side_by_side(skills), weights, jnp.asarray(x), frozen)
        np.testing.assert_allclose(outputs, update, atol=1e-5 * np.abs(update).max())
