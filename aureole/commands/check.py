"""`aureole check`: whether a certificate proves what it states, shown by code that shares nothing with the engines."""

from pathlib import Path

from aureole import terminal
from aureole.check_report import check_code, check_object, check_text
from aureole.exits import MissingFileError
from aureole.json_parts import to_text
from nets import shipped
from verifier.check.certificates import check_certificate
from verifier.errors import InputError
from verifier.network import Network
from verifier.onnx_import import load_network


def run(certificate: Path, network_name: str, *, covers_float32: bool, as_json: bool) -> int:
    """Checks a certificate and says what was shown; returns ROBUST for an accepted proof alone."""
    with terminal.reserved_stdout(as_json):
        if certificate.is_dir():
            raise InputError(f"certificate {certificate}: is a folder, wanted a file that verify --certificate wrote")
        if not certificate.is_file():
            raise MissingFileError(f"certificate {certificate}: no such file")
        network = _network(network_name)
        report = check_certificate(certificate, network, covers_float32=covers_float32)
    if as_json:
        terminal.write_json(to_text(check_object(report, certificate, network, network_name)))
    else:
        terminal.answers().print(check_text(report, certificate, network, network_name))
    return int(check_code(report))


def _network(name: str) -> Network:
    """The network in a file, or a shipped one; without the rest of the package, which a check has no use for."""
    path = Path(name)
    if path.is_dir():
        raise InputError(f"network {path}: is a folder, wanted an ONNX file")
    if path.exists():
        return load_network(path)
    if name in shipped.names():
        return load_network(shipped.network_path(name))
    raise MissingFileError(f"network {name}: no such file; shipped by name: {', '.join(shipped.names())}")
