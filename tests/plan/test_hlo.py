import jax
import jax.numpy as jnp
import pytest

from tfm.plan import hlo, live, work


def compiled(fn, *shapes, **options):
  args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return hlo.parse(jax.jit(fn, **options).lower(*args).compile().as_text())


def test_arrays_of_a_tuple_have_memory_spaces():
  text = '(f32[2,3]{1,0:T(8,128)S(1)}, /*index=1*/bf16[4]{0:S(5)}, s32[])'
  found = hlo.arrays(text)
  assert [a.shape for a in found] == [(2, 3), (4,), ()]
  assert [(a.on_chip, a.host, a.bytes) for a in found] == [
    (True, False, 24), (False, True, 8), (False, False, 4),
  ]  # fmt: skip


@pytest.mark.parametrize('n', [3, 7])
def test_flops_of_a_loop_count_every_pass(n):
  def fn(x):
    return jax.lax.scan(lambda c, _: (jnp.tanh(c @ c), None), x, length=n)[0]

  module = compiled(fn, (32, 32))
  found = work.measure(module, {'data': 1})
  assert found.flops == n * 2 * 32**3
  assert found.unknown_loops == 0


LOOP = """HloModule m, is_scheduled=true

%cond (p: (u32[], f32[8])) -> pred[] {
  %c = u32[] constant(12)
  %p = (u32[], f32[8]) parameter(0)
  %i = u32[] get-tuple-element(%p), index=0
  ROOT %less = pred[] compare(%i, %c), direction=DIRECTION
}

%body (q: (u32[], f32[8])) -> (u32[], f32[8]) {
  %q = (u32[], f32[8]) parameter(0)
  %two = u32[] constant(3)
  %j = u32[] get-tuple-element(%q), index=0
  %next = u32[] add(%j, %two)
  %v = f32[8] get-tuple-element(%q), index=1
  ROOT %t = (u32[], f32[8]) tuple(%next, %v)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8] parameter(0)
  %zero = u32[] constant(0)
  %start = (u32[], f32[8]) tuple(%zero, %x)
  %loop = (u32[], f32[8]) while(%start), condition=%cond, body=%body
  ROOT %out = f32[8] get-tuple-element(%loop), index=1
}
"""


@pytest.mark.parametrize(('direction', 'passes'), [('LT', 4), ('LE', 5), ('NE', None)])
def test_trip_count_follows_from_the_condition(direction, passes):
  module = hlo.parse(LOOP.replace('DIRECTION', direction))
  loop = module.computations['main'].instructions['loop']
  assert hlo.trip_count(module, 'main', loop) == passes
  assert module.runs['body'] == (passes or 1)


@pytest.mark.parametrize(
  ('text', 'group'),
  [
    ('replica_groups={{0,2},{1,3}}, dimensions={0}', [0, 2]),
    ('replica_groups=[2,2]<=[4], dimensions={0}', [0, 1]),
    ('replica_groups=[2,2]<=[2,2]T(1,0), dimensions={0}', [0, 2]),
    ("replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_1'}, dimensions={1}", [0, 1]),
    ("replica_groups=mesh['a'=1,'b'=2,'c'=2], device_ids=([2,2]T(1,0)) {'b'}", [0, 1]),
    ('source_target_pairs={{0,2},{2,0}}', [0, 2]),
  ],
  ids=['list', 'iota', 'transposed', 'mesh', 'mesh_ids', 'pairs'],
)
def test_groups_of_every_notation(text, group):
  assert work.groups(text, {'data': 2, 'fsdp': 2}) == group


def test_collectives_have_kind_axes_and_bytes():
  mesh = jax.make_mesh((2, 4), ('data', 'fsdp'), axis_types=(jax.sharding.AxisType.Auto,) * 2)
  split = jax.NamedSharding(mesh, jax.P('fsdp'))
  whole = jax.NamedSharding(mesh, jax.P())
  module = compiled(lambda x: x * 2, (64, 8), in_shardings=split, out_shardings=whole)
  (found,) = work.measure(module, mesh.shape).collectives
  assert found == work.Collective('all-gather', 'fsdp', 1, 3 * 64 * 8 * 4 // 4)


def test_convolution_flops_leave_out_padding():
  text = (
    'ENTRY %main (x: f32[2,10,4], w: f32[3,4,5]) -> f32[2,10,5] {\n'
    '  %x = f32[2,10,4]{2,1,0} parameter(0)\n'
    '  %w = f32[3,4,5]{2,1,0} parameter(1)\n'
    '  ROOT %c = f32[2,10,5]{2,1,0} convolution(%x, %w), window={size=3 pad=1_1}, '
    'dim_labels=b0f_0io->b0f\n}\n'
  )
  assert work.measure(hlo.parse(text), {'data': 1}).flops == 2 * 2 * 5 * 4 * (3 * 10 - 2)


def test_kernels_count_by_their_estimate_or_are_noted():
  text = (
    'ENTRY %main (x: f32[8]) -> f32[8] {\n'
    '  %x = f32[8]{0} parameter(0)\n'
    '  %a = f32[8]{0} custom-call(%x), custom_call_target="tpu_custom_call", '
    'backend_config={"custom_call_config":{"cost_estimate":{"flops":"640","x":"1"}}}\n'
    '  ROOT %b = f32[8]{0} custom-call(%a), custom_call_target="tpu_custom_call"\n}\n'
  )
  found = work.measure(hlo.parse(text), {'data': 1})
  assert (found.flops, found.kernels) == (640, 1)


def test_buffers_at_the_peak_are_those_in_use():
  text = (
    'ENTRY %main (x: f32[1000]) -> f32[10] {\n'
    '  %x = f32[1000]{0} parameter(0)\n'
    '  %a = f32[1000]{0} negate(%x)\n'
    '  %b = f32[500]{0} slice(%a), slice={[0:500]}\n'
    '  %c = f32[100]{0} slice(%b), slice={[0:100]}\n'
    '  ROOT %d = f32[10]{0} slice(%c), slice={[0:10]}\n}\n'
  )
  found = live.at_peak(hlo.parse(text))
  assert [(b.name, b.bytes) for b in found] == [('a', 4000), ('b', 2000)]


def test_peak_inside_a_loop_counts_what_waits_outside():
  module = compiled(
    lambda x: jax.lax.scan(lambda c, _: (jnp.sin(c @ c) @ c, None), x, length=4)[0] + x.sum(),
    (64, 64),
  )
  assert sum(b.bytes for b in live.at_peak(module)) >= 2 * 64 * 64 * 4


NESTED = """HloModule m, is_scheduled=true

%slice (p: f32[8,4,16], i: s32[]) -> f32[4,16] {
  %p = f32[8,4,16] parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  %s = f32[1,4,16] dynamic-slice(%p, %i, %zero, %zero), dynamic_slice_sizes={1,4,16}
  ROOT %b = f32[4,16] bitcast(%s)
}

%product (x: f32[2,4], w: f32[8,4,16], j: s32[]) -> f32[2,16] {
  %x = f32[2,4] parameter(0)
  %w = f32[8,4,16] parameter(1)
  %j = s32[] parameter(2)
  %one = f32[4,16] fusion(%w, %j), kind=kLoop, calls=%slice
  ROOT %dot = f32[2,16] dot(%x, %one), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %main (a: f32[2,4], w_L: f32[8,4,16], n: s32[]) -> f32[2,16] {
  %a = f32[2,4] parameter(0)
  %w_L = f32[8,4,16] parameter(1)
  %n = s32[] parameter(2)
  ROOT %out = f32[2,16] fusion(%a, %w_L, %n), kind=kOutput, calls=%product
}
"""


def test_traffic_counts_only_slices_of_nested_fusions():
  found = work.measure(hlo.parse(NESTED), {'data': 1})
  assert found.hbm_bytes == 4 * (2 * 4 + 4 * 16 + 1 + 2 * 16)
