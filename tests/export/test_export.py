"""`qec export`: the graph against torch, quantisation, the files, the messages."""

import hashlib
import json
import sys

import ml_dtypes
import numpy as np
import onnx
import pymatching
import pytest
import stim
import torch
from scipy import sparse

from qec.circuits.lattice import SpaceTimeLattice
from qec.cli.commands import COMMANDS, main
from qec.cli.config import load_config
from qec.decoding.decoder import Decoder
from qec.export import tensorrt
from qec.export.check import ROUNDING, GraphRunner, compare
from qec.export.cudaq import cudaq_files, matching_edges
from qec.export.graph import INPUT, OUTPUT, PredecoderModule, predecoder_graph
from qec.matching.matcher import Matcher, basis_split
from qec.predecoder.checkpoint import load_predecoder
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.onnx_model import OPSET
from qec.predecoder.predecoder import Predecoder
from qec.predecoder.quantise import quantise
from qec.support.errors import QecError
from qec.support.optional_import import optional


def dem_of(circuit):
    return circuit.detector_error_model(decompose_errors=True, approximate_disjoint_errors=True)


def sample(dem, shots, seed):
    dets, flips, _ = dem.compile_sampler(seed=seed).sample(shots)
    return dets.view(np.uint8), flips[:, 0].view(np.uint8)


def eager(**architecture):
    """An untrained pre-decoder that commits many arbitrary edges."""
    torch.manual_seed(0)
    network = PreDecoderNetwork(width=8, layers=3, **architecture)
    torch.nn.init.normal_(network.head.bias, mean=5.0)  # edges are rare: their priors lie near -7
    with torch.no_grad():
        network.head.weight *= 20
    return Predecoder(network, 0.7)


def bind(predecoder, dem):
    return predecoder.compile_for(SpaceTimeLattice.from_dem(dem), dtype=torch.float32)


@pytest.fixture(scope="module")
def exported(stim_circuit):
    """The shipped network at d = 3, R = 3: model, pre-decoder, what it is bound to, the graph."""
    dem = dem_of(stim_circuit(3, 3, "X", 0.006))
    predecoder = load_predecoder("standard")
    bound = bind(predecoder, dem)
    return dem, predecoder, bound, predecoder_graph(PredecoderModule(bound))


# The graph


@pytest.mark.parametrize("orientation", ["ZV", "XH"])
@pytest.mark.parametrize(("distance", "rounds"), [(3, 1), (3, 4), (5, 3)])
def test_the_index_arrays_are_the_residual(our_circuit, distance, rounds, orientation):
    dem = dem_of(our_circuit(distance, rounds, "X", orientation=orientation))
    bound = bind(eager(), dem)
    module = PredecoderModule(bound)
    told = len(bound.grid.predicted)
    generator = torch.Generator().manual_seed(1)
    fired = torch.randint(2, (50, told), generator=generator, dtype=torch.uint8)
    dets = torch.randint(2, (50, dem.num_detectors), generator=generator, dtype=torch.uint8)
    of_all = np.zeros((50, len(bound.grid.edges.ends)), dtype=np.uint8)
    of_all[:, bound.grid.predicted] = fired
    residual, flips, _ = bound.residual(dets, bound.grid.pack_edges(of_all).float(), 0.5)
    padded = np.pad(fired.numpy(), ((0, 0), (0, 1)))
    around = padded[:, module.detector_edges.numpy()].reshape(50, dem.num_detectors, -1)
    np.testing.assert_array_equal(residual, (dets.numpy() + around.sum(2)) % 2)
    np.testing.assert_array_equal(flips, padded[:, module.observable_edges].sum(1) % 2)


@pytest.mark.parametrize(
    ("distance", "rounds", "basis", "architecture"),
    [
        (3, 1, "Z", {}),
        (3, 5, "X", {"activation": "gelu", "residual": False}),
        (5, 3, "Z", {"kernel": 5}),
        (5, 7, "X", {"activation": "silu"}),
        (5, 4, "Z", {"active_only": True, "separable": True}),
        (3, 3, "X", {"active_only": True, "kernel": 5}),
    ],
)
@pytest.mark.slow
def test_the_graph_is_torch_bit_for_bit(our_circuit, distance, rounds, basis, architecture):
    dem = dem_of(our_circuit(distance, rounds, basis))
    bound = bind(eager(**architecture), dem)
    run = GraphRunner(predecoder_graph(PredecoderModule(bound))).predecode
    dets = (np.random.default_rng(2).random((300, dem.num_detectors)) < 0.3).astype(np.uint8)
    want = bound.apply(dets)
    assert (want.residual != dets).any(axis=1).mean() > 0.3  # it does commit
    # Log-odds within rounding of the threshold may fall on either side of it.
    clear = (np.abs(bound.log_odds(dets) - bound.cut) > ROUNDING).all(axis=1)
    assert clear.mean() > 0.5
    for shots in (dets, dets[:7], dets[:1], dets[:0]):
        got = run(shots)
        assert got.residual.dtype == got.committed.dtype == np.uint8
        sure = clear[: len(shots)]
        np.testing.assert_array_equal(got.residual[sure], want.residual[: len(shots)][sure])
        np.testing.assert_array_equal(got.committed[sure], want.committed[: len(shots)][sure])


@pytest.mark.slow
def test_belief_propagation_is_part_of_the_graph(our_circuit):
    dem = dem_of(our_circuit(3, 3, "X", 0.01))
    bound = bind(eager(belief_propagation=3), dem)
    run = GraphRunner(predecoder_graph(PredecoderModule(bound))).predecode
    dets, _ = sample(dem, 400, seed=3)
    want, got = bound.apply(dets), run(dets)
    # Tensors and loops round in different ways, of which a threshold may make a commit.
    assert (got.residual != want.residual).any(axis=1).mean() < 0.01
    assert (want.residual != dets).any(axis=1).mean() > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [{}, {"active_only": True}, {"separable": True}])
def test_kernels_are_constants_of_the_graph(our_circuit, architecture):
    """Also those of heads that read the cells of an edge's ends only, which are made up."""
    bound = bind(eager(**architecture), dem_of(our_circuit(3, 2, "X")))
    graph = predecoder_graph(PredecoderModule(bound)).graph
    constants = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    kernels = [constants[node.input[1]] for node in graph.node if node.op_type == "Conv"]
    convolutions = bound.network.convolutions()
    assert kernels == [conv.shape for conv in convolutions]


@pytest.mark.slow
def test_the_shipped_network_and_the_decoder_agree_with_the_graph(exported):
    dem, predecoder, bound, model = exported
    dets, flips = sample(dem, 2000, seed=3)
    decoder = Decoder.from_dem(dem, predecoder=predecoder)
    check = compare(model, model, bound, decoder, dets, flips)
    assert check.not_rounding == 0
    assert check.changed_shots <= 2
    assert abs(check.errors - check.torch_errors) <= check.changed_shots
    assert check.torch_errors == (decoder.decode_batch(dets)[:, 0] != flips).sum()
    assert check.time_over_float32 == 1


@pytest.mark.slow
def test_the_check_finds_a_wrong_graph(exported):
    dem, predecoder, _, model = exported
    dets, flips = sample(dem, 500, seed=4)
    other = bind(Predecoder(predecoder.network, 0.999), dem)
    check = compare(model, model, other, Decoder.from_dem(dem), dets, flips)
    assert check.changed_shots >= check.not_rounding > 5


@pytest.mark.slow
def test_nothing_is_committed_at_threshold_one(our_circuit):
    dem = dem_of(our_circuit(3, 2, "Z"))
    network = eager().network
    module = PredecoderModule(bind(Predecoder(network, 1), dem))
    dets, _ = sample(dem, 100, seed=5)
    residual, committed = GraphRunner(predecoder_graph(module)).predecode(dets)
    np.testing.assert_array_equal(residual, dets)
    assert not committed.any()


@pytest.mark.slow
def test_uint8_stays_at_the_ends_of_the_graph(exported):
    """As TensorRT wants it."""
    *_, model = exported
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    assert onnx.TensorProto.UINT8 not in types.values()
    (dets,), (out,) = model.graph.input, model.graph.output
    assert (dets.name, out.name) == (INPUT, OUTPUT)
    assert dets.type.tensor_type.shape.dim[0].dim_param


# Lower precision


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "dtype"), [("int8", np.int8), ("float8", ml_dtypes.float8_e4m3fn)]
)
def test_eight_bits_keep_nearly_all_outputs(exported, precision, dtype):
    dem, predecoder, bound, model = exported
    quantised = quantise(model, sample(dem, 128, seed=6)[0], precision)
    dets, flips = sample(dem, 2000, seed=7)
    decoder = Decoder.from_dem(dem, predecoder=predecoder)
    check = compare(quantised, model, bound, decoder, dets, flips)
    assert check.not_rounding is None
    assert 0 < check.changed_shots < 0.1 * check.shots
    assert abs(check.errors - check.torch_errors) <= check.changed_shots
    types = [node.op_type for node in quantised.graph.node]
    assert types.count("Conv") == len(bound.network.convolutions())
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in quantised.graph.initializer}
    for node in quantised.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = constants[node.input[2]]
            assert zero.dtype == dtype
            assert not zero.astype(float).any()


@pytest.mark.slow
def test_int8_leaves_the_float32_graph_as_it_was(exported):
    dem, *_, model = exported
    before = model.SerializeToString()
    quantise(model, sample(dem, 64, seed=6)[0])
    assert model.SerializeToString() == before


@pytest.mark.slow
def test_int8_needs_hidden_layers(our_circuit):
    dem = dem_of(our_circuit(3, 2, "X"))
    model = predecoder_graph(PredecoderModule(bind(Predecoder.null(), dem)))
    with pytest.raises(QecError, match="no hidden convolution"):
        quantise(model, sample(dem, 64, seed=6)[0])


@pytest.mark.slow
def test_float16_computes_in_float16(exported):
    dem, _, bound, _ = exported
    model = predecoder_graph(PredecoderModule(bound, torch.float16))
    constants = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    kernels = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    assert {constants[name] for name in kernels} == {onnx.TensorProto.FLOAT16}
    dets, _ = sample(dem, 500, seed=8)
    got, want = GraphRunner(model).predecode(dets), bound.apply(dets)
    assert (got.residual != want.residual).any(axis=1).mean() < 0.05
    assert next(bound.network.parameters()).dtype == torch.float32


# The command


def test_the_examples_are_configurations():
    assert load_config("export").opset == OPSET
    for example in COMMANDS["export"].examples:
        load_config("export", example.split()[2:])


def test_the_files_are_what_they_say(tmp_path, stim_circuit, capsys):
    circuit = stim_circuit(3, 3, "Z", 0.006)
    (tmp_path / "memory.stim").write_text(str(circuit))
    out = tmp_path / "graph"
    assert main(["export", f"circuit={tmp_path}/memory.stim", "check=200", f"out={out}"]) == 0
    assert "check on 200 shots" in capsys.readouterr().out

    metadata = json.loads((out / "metadata.json").read_text())
    names = {path.name for path in out.iterdir()}
    assert names == {"predecoder.onnx", "model.dem", "metadata.json"}
    for name, digest in metadata["sha256"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    model = onnx.load(out / "predecoder.onnx")
    (entry,) = model.metadata_props
    del metadata["sha256"]
    assert json.loads(entry.value) == metadata
    assert metadata["predecoder"]["digest"] == load_predecoder("standard").digest
    assert metadata["threshold"] == load_predecoder("standard").threshold
    assert metadata["check"]["shots"] == 200
    assert model.opset_import[0].version == metadata["opset"] == OPSET

    dem = stim.DetectorErrorModel.from_file(str(out / "model.dem"))
    dets, _ = sample(dem, 100, seed=9)
    assert metadata["input"]["shape"] == ["shots", dets.shape[1]]
    want = Decoder.from_circuit(circuit, predecoder="standard").predecode(dets)
    got = GraphRunner(model).predecode(dets)
    assert (got.residual == want.residual).mean() > 0.999  # bfloat16, where the CPU has it


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("precision=int4", "use float32, float16, int8"),
        ("layout=other", "use null or cudaq"),
        ("correlated=true", "correlated"),
        ("p=0.001,0.002", "2 experiments"),
        ("circuit=missing.dem", "no file missing.dem"),
        pytest.param("opset=99", "cannot export to opset=99", marks=pytest.mark.slow),
        ("check=-1", "check=-1"),
        ("predecoder=missing", "no pre-decoder checkpoint"),
    ],
)
def test_bad_values_are_named(tmp_path, monkeypatch, capsys, argument, message):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "distance=3", argument]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_missing_package_comes_with_its_command(monkeypatch, exported):
    _, _, bound, _ = exported
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "onnx.checker")
    with pytest.raises(
        QecError, match=r"onnx is not installed: pip install onnx onnxscript onnxruntime$"
    ):
        predecoder_graph(PredecoderModule(bound))


def test_an_error_inside_a_package_is_not_a_missing_package(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import not_there_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
        optional("broken_package", "broken")


# CUDA-Q QEC


def read_csr(content):
    rows, columns, entries = np.frombuffer(content, "<u4", 3)
    numbers = np.frombuffer(content, "<i4", offset=12)
    indptr, indices = numbers[: rows + 1], numbers[rows + 1 :]
    assert len(indices) == entries
    return sparse.csr_matrix((np.ones(entries, np.uint8), indices, indptr), (rows, columns))


def read_dense(content):
    rows, columns = np.frombuffer(content, "<u4", 2)
    return np.frombuffer(content, "<i4", offset=8).reshape(rows, columns)


def test_the_cudaq_files_hold_the_matching_problem(stim_circuit):
    lattice = SpaceTimeLattice.from_circuit(stim_circuit(5, 5, "X", 0.006))
    dets, flips = sample(dem_of(stim_circuit(5, 5, "X", 0.006)), 2000, seed=10)
    files = cudaq_files(lattice, dets, flips, {"d": 5, "r": 5, "b": "X"})
    np.testing.assert_array_equal(read_dense(files["detectors.bin"]), dets)
    np.testing.assert_array_equal(read_dense(files["observables.bin"])[:, 0], flips)
    assert files["metadata.txt"].decode() == "distance=5\nn_rounds=5\nbasis=X\n"

    checks, observables = read_csr(files["H_csr.bin"]), read_csr(files["O_csr.bin"])
    count = int(np.frombuffer(files["priors.bin"], "<u4", 1)[0])
    priors = np.frombuffer(files["priors.bin"], "<f8", offset=4)
    assert checks.shape == (lattice.num_detectors, count) == (dets.shape[1], len(priors))
    assert observables.shape == (1, count)
    assert ((priors > 0) & (priors < 1)).all()
    weights = np.log1p(-priors) - np.log(priors)
    ours = pymatching.Matching(checks, weights=weights, faults_matrix=observables)
    want = Matcher(basis_split(lattice), correlated=False).decode_batch(dets)
    # Ties between corrections of equal weight may be broken differently.
    assert (ours.decode_batch(dets)[:, 0] == want).mean() > 0.99


def test_edges_have_at_most_two_detectors(our_circuit):
    lattice = SpaceTimeLattice.from_circuit(our_circuit(3, 3, "Z"))
    checks, observables, priors = matching_edges(lattice)
    size = np.asarray(checks.sum(axis=0))
    assert set(np.unique(size)) == {1, 2}
    assert observables.nnz >= lattice.distance
    assert priors.dtype == np.float64


# TensorRT


def test_without_tensorrt_the_message_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(QecError, match="tensorrt is not installed: pip install tensorrt"):
        tensorrt.build(load_config("export-tensorrt"))


@pytest.mark.gpu
def test_the_tensorrt_engine_agrees_with_torch(exported, tmp_path):
    trt = pytest.importorskip("tensorrt")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    dem, _, bound, model = exported
    onnx.save(model, tmp_path / "predecoder.onnx")
    words = [f"graph={tmp_path}/predecoder.onnx", "batch=256"]
    path = tensorrt.build(load_config("export-tensorrt", words))
    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    context = runtime.deserialize_cuda_engine(path.read_bytes()).create_execution_context()
    dets, _ = sample(dem, 256, seed=11)
    shots = torch.from_numpy(dets).cuda()
    out = torch.empty(256, 1 + dets.shape[1], dtype=torch.uint8, device="cuda")
    context.set_input_shape(INPUT, tuple(shots.shape))
    context.set_tensor_address(INPUT, shots.data_ptr())
    context.set_tensor_address(OUTPUT, out.data_ptr())
    context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
    torch.cuda.synchronize()
    want = bound.apply(dets)
    # float32 convolutions may run in TF32.
    assert (out.cpu().numpy()[:, 1:] == want.residual).mean() > 0.999
