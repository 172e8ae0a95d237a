"""Packaging of poly_jax: `tasks/` and `gin/` are top-level folders that install inside the package."""

import setuptools

setuptools.setup(
    packages=[
        *setuptools.find_packages(include=["poly_jax", "poly_jax.*"]),
        *("poly_jax." + name for name in setuptools.find_packages(include=["tasks", "tasks.*"])),
        *("poly_jax." + name for name in setuptools.find_namespace_packages(include=["gin", "gin.*"])),
    ],
    package_dir={"poly_jax": "poly_jax", "poly_jax.tasks": "tasks", "poly_jax.gin": "gin"},
    package_data={
        "": ["*.gin"],
        "poly_jax": ["py.typed"],
        "poly_jax.analysis": ["*.jinja", "*.js"],
        "poly_jax.launch": ["scripts/*.jinja"],
        "poly_jax.planning": ["*.jinja"],
        "poly_jax.prepare": ["*.jinja"],
        "poly_jax.tasks": ["**/*.safetensors"],
    },
)
