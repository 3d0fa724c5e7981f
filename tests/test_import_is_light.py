import subprocess
import sys

HEAVY = ("torchrec", "fbgemm_gpu", "mlflow", "matplotlib", "scipy", "sklearn", "faiss", "pandas")


def test_import_recembed_loads_no_heavy_package() -> None:
    code = f"import sys, recembed; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [], "")


def test_the_public_names_exist() -> None:
    import recembed

    assert [name for name in getattr(recembed, "__all__", []) if not hasattr(recembed, name)] == []
