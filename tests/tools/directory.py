"""What a Hugging Face directory holds, read with nothing but the standard library.

usage: directory.py same DIR REFERENCE     every tensor of both, bit for bit
       directory.py index DIR              the index names every tensor in its file, and the sum of their bytes
       directory.py sums DIR OUTPUT        size and SHA-256 of every file as `plm export` printed them
       directory.py peak MIB COMMAND...    run it: its peak memory is that many MiB, within 5 %
"""
import glob, hashlib, json, os, re, resource, subprocess, sys


def tensors(path):
    with open(path, "rb") as f:
        data = f.read()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], data[8 + length + t["data_offsets"][0]:8 + length + t["data_offsets"][1]]) for name, t in header.items()}


def directory(path):
    found = {}
    for file in sorted(glob.glob(path + "/model*.safetensors")):
        more = tensors(file)
        assert not set(found) & set(more), "a tensor twice"
        found.update(more)
    return found


def index(path):
    with open(path + "/model.safetensors.index.json") as f:
        said = json.load(f)
    files = sorted(set(said["weight_map"].values()))
    assert files == sorted(map(os.path.basename, glob.glob(path + "/model-*.safetensors"))), files
    assert len(files) > 1 and all(re.fullmatch(r"model-\d{5}-of-%05d\.safetensors" % len(files), f) for f in files), files
    there = {name: file for file in files for name in tensors(f"{path}/{file}")}
    assert there == said["weight_map"]
    assert said["metadata"]["total_size"] == sum(len(t[2]) for t in directory(path).values())


def sums(path, output):
    with open(output) as f:
        printed = {m[1]: (int(m[2]), m[3]) for m in re.finditer(r"^  (\S+): (?:\d+ tensors, )?(\d+) bytes, sha256 ([0-9a-f]{64})$", f.read(), re.M)}
    files = sorted(os.listdir(path)) if os.path.isdir(path) else [os.path.basename(path)]
    assert sorted(printed) == files, (printed, files)
    for name in files:
        with open(os.path.join(path, name) if os.path.isdir(path) else path, "rb") as f:
            data = f.read()
        assert printed[name] == (len(data), hashlib.sha256(data).hexdigest()), name


def peak(command):
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


what, arguments = sys.argv[1], sys.argv[2:]
if what == "same":
    a, b = map(directory, arguments)
    assert a and a == b, "different tensors"
elif what == "index":
    index(*arguments)
elif what == "sums":
    sums(*arguments)
elif what == "peak":
    planned, measured = float(arguments[0]), peak(arguments[1:])
    print(f"planned {planned:.2f} MiB, taken {measured:.2f} MiB, ratio {planned / measured:.3f}")
    assert 0.95 <= planned / measured <= 1.05
else:
    sys.exit(__doc__)
