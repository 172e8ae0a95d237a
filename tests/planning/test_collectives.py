"""What programs send between devices: texts, and programs whose communication is known."""

import json

import pytest

from poly_jax.planning.collectives import collectives, device_groups, readable_source
from poly_jax.planning.hlo import read_hlo


def program(line, operand="f32[8,64]"):
    return read_hlo(f"ENTRY %main (a: {operand}) -> f32[] {{\n  %a = {operand} parameter(0)\n  {line}\n}}\n")


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("replica_groups={{0,1},{2,3}}, use_global_device_ids=true", [(0, 1), (2, 3)]),
        ("replica_groups=[2,4]<=[8], dimensions={0}", [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", [(0, 4), (1, 5), (2, 6), (3, 7)]),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_0'}", [(0, 2), (1, 3)]),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_0','axis_1'}", [(0, 1, 2, 3)]),
        ("source_target_pairs={{0,1},{1,0}}", [(0, 1), (1, 0)]),
        ("replica_groups={}", []),
    ],
)
def test_groups_of_devices_are_read_in_each_notation(attributes, expected):
    assert device_groups(attributes) == expected


def test_the_bytes_of_an_all_gather_are_those_of_its_result():
    (found,) = collectives(program("ROOT %g = f32[32,64] all-gather(%a), replica_groups=[1,4]<=[4]"), 4)
    assert (found.kind, found.count, found.bytes, found.shape) == ("all-gather", 1, 4 * 32 * 64, "f32[32,64]")


def test_the_bytes_of_a_reduce_scatter_are_those_of_its_operand():
    (found,) = collectives(program("ROOT %g = f32[2,64] reduce-scatter(%a), replica_groups=[1,4]<=[4]"), 4)
    assert (found.bytes, found.shape) == (4 * 8 * 64, "f32[8,64]")


def test_the_start_of_an_all_gather_counts_its_result_and_the_end_nothing():
    text = (
        "%s = (f32[8,64], f32[32,64]) all-gather-start(%a), replica_groups=[1,4]<=[4]\n"
        "  ROOT %g = f32[32,64] all-gather-done(%s)"
    )
    (found,) = collectives(program(text), 4)
    assert (found.count, found.bytes) == (1, 4 * 32 * 64)


def test_an_operation_in_a_chain_of_fusions_counts_once():
    # The compiler for TPUs overlaps a collective with products in this way.
    def piece(name, chain):
        return (
            f"%{name} (p: f32[8,64]) -> f32[32,64] {{\n  %p = f32[8,64] parameter(0)\n  ROOT %g.{name} ="
            f" f32[32,64] all-gather(%p), channel_id=3, replica_groups=[1,4]<=[4],"
            f' frontend_attributes={{chain_id="{chain}"}}\n}}\n'
        )

    names = {"start": 18, "middle": 18, "end": 18, "other": 19}
    calls = [f"  %{name}.1 = f32[32,64] fusion(%a), kind=kCustom, calls=%{name}\n" for name in names]
    entry = "ENTRY %main (a: f32[8,64]) -> f32[] {\n  %a = f32[8,64] parameter(0)\n" + "".join(calls) + "}\n"
    text = "".join(piece(name, chain) for name, chain in names.items()) + entry
    (found,) = collectives(read_hlo(text), 4)
    assert (found.count, found.bytes) == (2, 2 * 4 * 32 * 64)


def test_several_arrays_in_one_operation_are_added():
    text = "ROOT %r = (f32[8,64], f32[8]) all-reduce(%a, %b), replica_groups=[1,4]<=[4], to_apply=%add"
    (found,) = collectives(program(text), 4)
    assert (found.count, found.bytes, found.shape, found.arrays) == (1, 4 * (8 * 64 + 8), "f32[8,64]", 2)


def test_groups_of_one_device_send_nothing():
    assert collectives(program("ROOT %r = f32[8,64] all-reduce(%a), replica_groups={{0},{1}}"), 2) == []


@pytest.mark.parametrize(("groups", "network"), [("{{0,1},{2,3}}", "ici"), ("{{0,2},{1,3}}", "dcn")])
def test_groups_across_slices_use_the_data_centres_network(groups, network):
    (found,) = collectives(program(f"ROOT %r = f32[8,64] all-reduce(%a), replica_groups={groups}"), 2)
    assert found.network == network


def test_transfers_between_slices_are_collectives_over_the_data_centres_network():
    line = (
        "%s = (f32[8,64], u32[], token[]) send(%a, %t), channel_id=2, is_host_transfer=true,"
        ' frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}'
    )
    (found,) = collectives(program(line), 4)
    assert (found.kind, found.network, found.bytes) == ("all-reduce", "dcn", 4 * 8 * 64)


@pytest.mark.parametrize(
    ("op_name", "expected"),
    [
        (
            "jit(<unnamed function>)/transpose(jvp(Transformer))/Transformer._encode/encoder/while/body/"
            "closed_call/layers/attention/attention._heads/query/dot_general",
            "backward/encoder/layers/attention/query/dot_general",
        ),
        ("jit(f)/jvp(Transformer)/decoder/mlp/(wi_0/dot:wi_1/dot)", "forward/decoder/mlp/wi_0/dot"),
        (
            "jit(f)/(reduce_sum:transpose(jvp(Transformer))/encoder/mlp/dot:transpose(jvp(Transformer))/other)",
            "backward/encoder/mlp/dot",
        ),
        ("", ""),
    ],
)
def test_a_source_is_a_path_of_modules(op_name, expected):
    assert readable_source(op_name) == expected


def main():
    """Print the collectives of programs on 8 CPU devices, 4 of which are a slice."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)

    def described(shape, *axes):
        place = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)

    def found(function, *arguments):
        with jax.set_mesh(mesh):
            text = jax.jit(function).lower(*arguments).compile().as_text()
        return [[each.kind, each.count, each.bytes, each.network] for each in collectives(read_hlo(text), 4)]

    def layers(x, w):
        # Each layer's product sums over an axis that 4 devices share.
        def layer(x, w):
            x = jax.lax.with_sharding_constraint(x, PartitionSpec("data", "model"))
            return jax.lax.with_sharding_constraint(jnp.sin(x @ w), PartitionSpec("data", None)), None

        return jax.lax.scan(layer, x, w)[0]

    def gathered(x):
        return jax.lax.with_sharding_constraint(jnp.sin(x), PartitionSpec(None, None))

    print(
        json.dumps(
            {
                "layers": found(layers, described((16, 64), "data"), described((5, 64, 64), None, "model")),
                "across": found(lambda x: x.sum(), described((16, 64), "data")),
                "gathered": found(gathered, described((16, 64), None, "model")),
            }
        )
    )


@pytest.fixture(scope="module")
def compiled(on_eight_devices):
    return on_eight_devices(__file__)


def test_a_layer_that_sums_over_devices_has_an_all_reduce_in_each_of_its_runs(compiled):
    assert compiled["layers"] == [["all-reduce", 5, 5 * 4 * 8 * 64, "ici"]]


def test_a_sum_over_all_devices_crosses_the_slices(compiled):
    assert compiled["across"] == [["all-reduce", 1, 4, "dcn"]]


def test_a_constraint_that_replicates_gathers(compiled):
    assert compiled["gathered"] == [["all-gather", 1, 4 * 16 * 64, "ici"]]


if __name__ == "__main__":
    main()
